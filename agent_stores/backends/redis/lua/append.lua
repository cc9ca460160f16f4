-- Append rows and trim the thread: see `agent_stores.capabilities.Appender`. The first write is one that the
-- server refuses when its memory is full, so that the script is refused as a whole.
--
-- Replies the last position; a list of it alone when another one is expected; nil for the log's general path.

local request, expected, limit, ttl, refresh, create, confirm, thread_id = unpack(ARGV, 1, 8)
local t, problem = load_thread()
if problem or create == '' and (not t or t.last_position == 0) then
  return problem or false
end
local is_new = not t
t = t or {
  layout = 2, version = NOW_US, last_position = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, ttl = '',
  ttl_refresh = 'write', ttl_explicit = '', expires = '', requests = ',', request_count = 0, commit = '',
}

local names, existing = {}, 0
for n = 9, #ARGV do
  names[#names + 1] = string.match(ARGV[n], '^[^\n]*,([^,\n]*)\n')
end
for first = 1, is_new and 0 or #names, 1000 do
  for _, found in ipairs(call('HMGET', IDS, unpack(names, first, math.min(first + 999, #names)))) do
    existing = existing + (found and 1 or 0)
  end
end
if existing == #names or string.find(t.requests, ',' .. request .. ',', 1, true) then
  if confirm ~= '' then
    call('HSET', META, 'version', t.version)  -- so that WAIT covers the earlier write
  end
  return t.last_position
elseif existing > 0 then
  return false
elseif expected ~= '' and tonumber(expected) ~= t.last_position then
  return {t.last_position}
end

local entries, pinned, ids, first_us, last_us = {}, {}, {}, nil, nil
local is_first = t.last_position == 0
for n, name in ipairs(names) do
  local row = ARGV[n + 8]
  local flags, created, tokens, body_at = string.match(row, '^(%a*),([^,]*),(%d+),[^\n]*\n()')
  t.last_position = t.last_position + 1
  t.bytes, t.tokens = t.bytes + #row - body_at + 1, t.tokens + tokens
  first_us, last_us = first_us or created, created
  ids[#ids + 1], ids[#ids + 2] = name, t.last_position
  row = string.format('%d,', t.last_position) .. row
  if string.find(flags, 'p', 1, true) then
    pinned[#pinned + 1], pinned[#pinned + 2] = t.last_position, row
  else
    entries[#entries + 1] = row
  end
end
t.messages, t.pinned, t.version = t.messages + #names, t.pinned + #pinned / 2, t.version + 1
t.requests, t.request_count = t.requests .. request .. ',', t.request_count + 1
if t.request_count > 32 then
  t.requests, t.request_count = string.match(t.requests, '^,[^,]*(.*)$'), 32
end
local sets_ttl = refresh ~= '' and t.ttl_explicit == '' and (tostring(t.ttl) ~= ttl or t.ttl_refresh ~= refresh)
if sets_ttl then
  t.ttl, t.ttl_refresh, t.expires = tonumber(ttl) or '', refresh, ''
end
if t.ttl ~= '' and (sets_ttl or t.ttl_refresh ~= 'never') then
  t.expires = NOW_MS + t.ttl
end
if #entries > 0 and is_plain(t) then
  entries[#entries] = string.gsub(entries[#entries], ',', ',e', 1)
end
in_parts('RPUSH', MESSAGES, entries)
in_parts('HSET', PINNED, pinned)
in_parts('HSET', IDS, ids)
if limit ~= '' then
  trim(t, t.messages - t.pinned - limit)
end
save(t, thread_id, is_new, {is_first and 'first_us' or 'last_us', first_us, 'last_us', last_us})
return t.last_position
