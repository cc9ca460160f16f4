-- Change a thread and its rows: see `agent_stores.backend.Backend.commit`.
--
-- Arguments: the expected version or ''; the commit's own id; the thread id; the milliseconds until the thread
-- expires, '' for never, 'keep' to leave it; '1' to remove all rows first; as JSON: the new state, further fields
-- and values of the meta hash, ids to delete, their positions in the list, their positions among the pinned rows;
-- entries to put. Replies the new version; nil when the expected one is wrong.

local expected, commit, thread_id, left, clear = unpack(ARGV, 1, 5)
local state, fields, ids, positions, pinned = unpack(cjson.decode(ARGV[6]))
local t, problem = load_thread()
local version = t and string.format('%.0f', t.version) or ''
if problem then
  return problem
elseif t and call('HGET', META, 'commit') == commit then  -- a retry of the last commit
  save(t, thread_id, false)  -- so that WAIT covers the earlier write
  return version
elseif version ~= expected then
  return false
elseif #ARGV > 6 then
  call('HSETNX', META, 'commit', '')  -- refused where the server's memory is full, before anything is removed
end
local is_new = not t
t = t or new_thread()
local length = t.messages - t.pinned
if clear ~= '' then
  call('UNLINK', MESSAGES, IDS, PINNED)
  length = 0
end

local function remove(listed)
  local indexes = {}
  for _, position in ipairs(listed) do
    local index, is_there = locate(position, length)
    indexes[#indexes + 1] = is_there and nearer(index, length) or nil
  end
  for _, index in ipairs(indexes) do
    call('LSET', MESSAGES, index, '')
  end
  if #indexes > 0 then
    call('LREM', MESSAGES, indexes[1] < 0 and -#indexes or #indexes, '')
  end
  length = length - #indexes
end

in_parts('HDEL', IDS, ids)
in_parts('HDEL', PINNED, pinned)
remove(positions)
for n = 7, #ARGV do
  local entry = ARGV[n]
  local position, pin, id = string.match(entry, '^(%d+),b?(p?),[^,]*,[^,]*,([^\n]*)\n')
  local index, is_there = locate(tonumber(position), length)
  call('HSET', IDS, id, position)
  if pin == 'p' then
    remove(is_there and {tonumber(position)} or {})
    call('HSET', PINNED, position, entry)
  else
    call('HDEL', PINNED, position)
    if is_there then
      call('LSET', MESSAGES, nearer(index, length), entry)
    elseif index == length then
      call('RPUSH', MESSAGES, entry)
    else
      call('LINSERT', MESSAGES, 'BEFORE', call('LINDEX', MESSAGES, nearer(index, length)), entry)
    end
    length = length + (is_there and 0 or 1)
  end
end

for name, value in pairs(state) do
  t[name] = value
end
t.version, t.updated_us = t.version + 1, NOW_US
if left ~= 'keep' then
  t.expires = left ~= '' and NOW_MS + left or nil
end
mark_end(t)
save(t, thread_id, is_new, 'commit', commit, unpack(fields))
return string.format('%.0f', t.version)
