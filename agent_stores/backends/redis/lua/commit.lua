-- Change a thread and its rows: see `agent_stores.backend.Backend.commit`. Replies the new version; nil when the
-- expected one is wrong. Arguments: the expected version or ''; the new one; the thread id; milliseconds until the
-- thread expires, '' for never, 'keep' to leave it; '1' to remove all rows first; as JSON, the new state, further
-- fields and values, ids to delete, their positions in the list and among the pinned rows; entries to put.
local expected, version, thread_id, left, clear = unpack(ARGV, 1, 5)
local state, fields, ids, positions, pinned = unpack(cjson.decode(ARGV[6]))
local found = call('HMGET', META, 'state', 'requests')
local t, problem = load_thread(found[1], found[2])
if problem then
  return problem
elseif t and t.version == version then  -- a retry of the last commit
  save(t, thread_id, false, {})  -- so that WAIT covers the earlier write
  return version
elseif (t and t.version or '') ~= expected then
  return false
elseif #ARGV > 6 then
  call('HSETNX', META, 'requests', '')  -- refused where the server's memory is full, before anything is removed
end
local is_new, t = not t, t or new_thread()
local length = clear == '' and t.messages - t.pinned or 0
if clear ~= '' then call('UNLINK', META, MESSAGES, PINNED) end

local function remove(listed)
  local indexes = {}
  for _, position in ipairs(listed) do
    local index, exists = locate(tonumber(position), length)
    indexes[#indexes + 1] = exists and nearer(index, length) or nil
  end
  for _, index in ipairs(indexes) do call('LSET', MESSAGES, index, '') end
  if #indexes > 0 then
    length = length - call('LREM', MESSAGES, indexes[1] < 0 and -#indexes or #indexes, '')
  end
end

in_parts('HDEL', META, ids)
in_parts('HDEL', PINNED, pinned)
remove(positions)
for n = 7, #ARGV do
  local flag, position, id = string.match(ARGV[n], '^(%d)(%d+),[^,]*,[^,]*,([^\n]*)\n')
  local index, exists = locate(tonumber(position), length)
  call('HSET', META, id, position)
  if flag == '2' or flag == '3' then
    remove({position})
    call('HSET', PINNED, position, ARGV[n])
  else
    call('HDEL', PINNED, position)
    if exists then
      call('LSET', MESSAGES, nearer(index, length), ARGV[n])
    elseif index == length then
      call('RPUSH', MESSAGES, ARGV[n])
    else
      call('LINSERT', MESSAGES, 'BEFORE', call('LINDEX', MESSAGES, nearer(index, length)), ARGV[n])
    end
    length = length + (exists and 0 or 1)
  end
end
t.version, t.last, t.messages, t.pinned, t.bytes, t.tokens, t.request_count, t.first_us, t.last_us, t.ttl, t.refresh,
  t.explicit = version, unpack(state)
t.pinned = tonumber(t.pinned)
t.expires = left == 'keep' and t.expires or tonumber(left) and NOW_MS + left or nil
mark_end(t)
save(t, thread_id, is_new, fields)
return version
