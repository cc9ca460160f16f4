-- Change a thread and its rows: see `agent_stores.backend.Backend.commit`. Replies the new version; nil when the
-- expected one is wrong. Arguments: the thread id; the expected version or ''; the new one; milliseconds until the
-- thread expires, '' for never, 'keep' to leave it; '1' to remove all rows first; as JSON, the new state, further
-- fields and values, ids to delete, their positions; entries to put.
-- include keys
-- include list
local thread_id, expected, new_version, left, clear = unpack(ARGV, 1, 5)
local state, fields, ids, positions = unpack(cjson.decode(ARGV[6]))
local is_checked, is_timed, found = false, false, call('HMGET', META, 'state', 'requests')
-- include thread
if version == new_version then  -- a retry of the last commit: HSET, so that WAIT covers the earlier write
  call('HSET', META, 'state', found[1])
  return new_version
elseif version ~= expected then
  return false
elseif #ARGV > 6 then
  call('HSETNX', META, 'requests', '')  -- refused where the server's memory is full, before anything is removed
end
local length = clear == '' and messages - pinned or 0
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

for key, names in pairs({[META] = ids, [PINNED] = positions}) do
  for first = 1, #names, 1000 do
    call('HDEL', key, unpack(names, first, math.min(first + 999, #names)))
  end
end
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
version, last, messages, pinned, total_bytes, total_tokens, request_count, first_us, last_us, ttl, refresh,
  explicit, revision = new_version, unpack(state)
pinned = tonumber(pinned)
expires = left == 'keep' and expires or tonumber(left) and now_ms() + left or nil
-- include write_tail_marker
-- include save
return new_version
