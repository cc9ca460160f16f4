-- Read a thread and rows as of one moment: see `agent_stores.backend.Backend.rows` and `find`. Replies nil, or three
-- fields of the meta hash, its remaining milliseconds, entries of the list, and entries of pinned rows. Arguments:
-- the thread id; after; before or ''; limit or ''; '1' for the newest; '1' for bodies, else their sizes; ids to find instead.
-- include keys
-- include list
local after, before, limit, newest, bodies = unpack(ARGV, 2, 6)
local is_checked, found = false, call('HMGET', META, 'state', 'requests', 'metadata')
-- include thread
if is_new then return false end
local length, rows = messages - pinned, {}
if #ARGV == 6 then
  local first = locate(after + 1, length)
  local last = (before == '' and length or locate(tonumber(before), length)) - 1
  if limit ~= '' and newest ~= '' then
    first = math.max(first, last - limit + 1)
  elseif limit ~= '' then
    last = math.min(last, first + limit - 1)
  end
  rows = last >= first and call('LRANGE', MESSAGES, first, last) or {}
end
for n = 7, #ARGV do
  local position = tonumber(call('HGET', META, ARGV[n]) or nil)
  local entry = position and pinned > 0 and call('HGET', PINNED, position)
  rows[#rows + 1] = entry or position and call('LINDEX', MESSAGES, nearer(locate(position, length), length))
end
local pinned = #ARGV == 6 and pinned > 0 and call('HVALS', PINNED) or {}
for _, list in ipairs(bodies == '' and {rows, pinned} or {}) do
  for n, entry in ipairs(list) do
    local line = string.match(entry, '^[^\n]*\n')
    list[n] = line .. (#entry - #line)
  end
end
return {found, call('PTTL', META), rows, pinned}
