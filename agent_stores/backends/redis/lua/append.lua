-- Append rows and trim the thread: see `agent_stores.capabilities.Appender`. The first write is one that a server
-- without memory refuses, so that all of it is refused. Replies the last position; a list of it alone when another
-- one is expected; nil for the log's general path. After the first arguments come the ids, and then the rows, which
-- lack their flags, a digit each of `flags`, and their positions.
local request, expected, limit, ttl, refresh, create, confirm, version, thread_id, flags, bytes, tokens, first_us,
  last_us = unpack(ARGV, 1, 14)
local count, existing = #flags, 0
local found = call('HMGET', META, 'state', 'requests', unpack(ARGV, 15, 14 + math.min(count, 1000)))
local pinned_count = string.find(flags, '[23]') and select(2, string.gsub(flags, '[23]', '')) or 0
local t, problem = load_thread(found[1], found[2], pinned_count < count)
if problem or create == '' and (not t or t.last == 0) then
  return problem or false
end
local is_new, t = not t, t or new_thread()
for first = 15, t.messages > 0 and count + 14 or 0, 1000 do
  local ids = first > 15 and call('HMGET', META, unpack(ARGV, first, math.min(first + 999, count + 14))) or found
  for n = first > 15 and 1 or 3, #ids do
    existing = existing + (ids[n] and 1 or 0)
  end
end
if existing == count or string.find(t.requests, ',' .. request .. ',', 1, true) then
  if confirm ~= '' then save(t, thread_id, false, {}) end  -- so that WAIT covers the earlier write
  return t.last
elseif existing > 0 then
  return false
elseif expected ~= '' and tonumber(expected) ~= t.last then
  return {t.last}
end

local length = t.messages - t.pinned
t.version, t.bytes, t.tokens, t.last_us = version, t.bytes + bytes, t.tokens + tokens, last_us
t.first_us = t.first_us == '' and first_us or t.first_us
t.messages, t.pinned = t.messages + count, t.pinned + pinned_count
t.requests, t.request_count = t.requests .. request .. ',', t.request_count + 1
if t.request_count > 32 then
  t.requests, t.request_count = string.sub(t.requests, (string.find(t.requests, ',', 2, true))), 32
end
local sets_ttl = refresh ~= '' and t.explicit == '' and (t.ttl ~= ttl or t.refresh ~= refresh)
if sets_ttl then
  t.ttl, t.refresh, t.expires = ttl, refresh, nil
end
local moves = t.ttl ~= '' and (sets_ttl or t.refresh ~= 'never') and renew(t)
t.is_timed = length > 0 and pinned_count == 0 and not (moves or sets_ttl)
local entries, pinned, fields = {}, {}, {}
for n = 1, count do
  local flag, position = string.sub(flags, n, n), string.format('%d', t.last + n)
  fields[2 * n - 1], fields[2 * n] = ARGV[14 + n], position
  if flag == '2' or flag == '3' then
    pinned[#pinned + 1], pinned[#pinned + 2] = position, flag .. position .. ARGV[14 + count + n]
  else
    flag = (n == count and is_plain(t)) and flag + 4 or flag
    entries[#entries + 1] = flag .. position .. ARGV[14 + count + n]
  end
end
t.last = t.last + count
for first = 1, #entries, 1000 do
  local last = math.min(first + 999, #entries)
  if call('RPUSH', MESSAGES, unpack(entries, first, last)) ~= length + last then
    call('LTRIM', MESSAGES, 0, -1 - last)
    return redis.error_reply('AGENTDAMAGED its list of messages is missing or incomplete')
  end
end
in_parts('HSET', PINNED, pinned)
if pinned_count > 0 then mark_end(t) end
if limit ~= '' then fields = trim(t, t.messages - t.pinned - limit, length, fields) end
fields[#fields + 1], fields[#fields + 2] = 'requests', t.requests
save(t, thread_id, is_new, fields)
return t.last
