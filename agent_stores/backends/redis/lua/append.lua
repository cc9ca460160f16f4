-- Append rows and trim the thread: see `agent_stores.capabilities.Appender`. The first write is one that a server
-- without memory refuses, so that all of it is refused. Replies the last position; a list of it alone when another
-- one is expected; nil for the log's general path.
local request, expected, limit, ttl, refresh, create, confirm, now_us, thread_id = unpack(ARGV, 1, 9)
local t, problem = load_thread()
if problem or create == '' and (not t or t.last == 0) then
  return problem or false
end
local is_new = not t
t = t or new_thread()
-- The rows with their positions; nothing is written when one of them exists.
local names, ids, entries, positions, pinned, existing = {}, {}, {}, {}, {}, 0
local position, bytes, tokens, first_us, last_us = t.last, t.bytes, t.tokens, nil, nil
for n = 10, #ARGV do
  local row = ARGV[n]
  local pin, created, count, name, body_at = string.match(row, '^b?(p?),([^,]*),(%d+),([^\n]*)\n()')
  position, bytes, tokens = position + 1, bytes + #row - body_at + 1, tokens + count
  first_us, last_us = first_us or created, created
  names[#names + 1], ids[#ids + 1], ids[#ids + 2] = name, name, position
  if pin == '' then
    entries[#entries + 1], positions[#positions + 1] = row, position
  else
    pinned[#pinned + 1], pinned[#pinned + 2] = position, position .. ',' .. row
  end
end
for first = 1, t.messages > 0 and #names or 0, 1000 do
  local found = call('HMGET', IDS, unpack(names, first, math.min(first + 999, #names)))
  for n = 1, #found do
    existing = existing + (found[n] and 1 or 0)
  end
end
if existing == #names or string.find(t.requests, ',' .. request .. ',', 1, true) then
  if confirm ~= '' then
    save(t, thread_id, false)  -- so that WAIT covers the earlier write
  end
  return t.last
elseif existing > 0 then
  return false
elseif expected ~= '' and tonumber(expected) ~= t.last then
  return {t.last}
end
t.first_us, t.last_us = t.first_us == '' and first_us or t.first_us, last_us
t.last, t.bytes, t.tokens, t.version, t.updated_us = position, bytes, tokens, t.version + 1, now_us
t.messages, t.pinned = t.messages + #names, t.pinned + #pinned / 2
t.requests, t.request_count = t.requests .. request .. ',', t.request_count + 1
if t.request_count > 32 then
  t.requests, t.request_count = string.sub(t.requests, (string.find(t.requests, ',', 2, true))), 32
end
local sets_ttl = refresh ~= '' and t.explicit == '' and (t.ttl ~= ttl or t.refresh ~= refresh)
if sets_ttl then
  t.ttl, t.refresh, t.expires = ttl, refresh, nil
end
if t.ttl ~= '' and (sets_ttl or t.refresh ~= 'never') then
  t.expires = NOW_MS + t.ttl
end
for n = 1, #entries do
  entries[n] = positions[n] .. (n == #entries and is_plain(t) and ',e' or ',') .. entries[n]
end
in_parts('RPUSH', MESSAGES, entries)
in_parts('HSET', PINNED, pinned)
in_parts('HSET', IDS, ids)
if #entries == 0 then mark_end(t) end
if limit ~= '' and t.messages - t.pinned > tonumber(limit) then
  trim(t, t.messages - t.pinned - limit)
end
save(t, thread_id, is_new, 'requests', t.requests)
return t.last
