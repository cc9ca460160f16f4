-- Append rows and trim the thread: see `agent_stores.capabilities.Appender`. The first write is one that a server
-- without memory refuses, so that all of it is refused. Replies the last position; a list of it alone when another
-- one is expected; nil for the log's fallback. After the first arguments come the ids, and then the rows, which
-- lack their flags, a digit each of `flags`, and their positions.
-- include keys
local thread_id, request, expected, limit, ttl_given, refresh_given, create, confirm, now_us, flags, bytes, tokens,
  first_created, last_created = unpack(ARGV, 1, 14)
local count, existing = #flags, 0
local pinned_count = string.find(flags, '[23]') and select(2, string.gsub(flags, '[23]', '')) or 0
local is_checked, is_timed, renewed, fields = pinned_count < count, false, false, {}
local found = call('HMGET', META, 'state', 'requests', unpack(ARGV, 15, 14 + math.min(count, 1000)))
-- include thread
if create == '' and last == 0 then return false end
for n = 3, #found do
  if found[n] then existing = existing + 1 end
end
for first = 1015, count + 14, 1000 do
  for _, position in ipairs(call('HMGET', META, unpack(ARGV, first, math.min(first + 999, count + 14)))) do
    existing = existing + (position and 1 or 0)
  end
end
if existing == count or string.find(requests, ',' .. request .. ',', 1, true) then
  if confirm == '' then return last end  -- else it is written again, so that WAIT covers the earlier write
elseif existing > 0 then
  return false
elseif expected ~= '' and tonumber(expected) ~= last then
  return {last}
else
  local length, is_plain = messages - pinned, pinned + pinned_count == 0
  version, last_us, first_us = now_us .. '.' .. request, last_created, first_us == '' and first_created or first_us
  messages, pinned, total_bytes, total_tokens = messages + count, pinned + pinned_count, total_bytes + bytes,
    total_tokens + tokens
  requests, request_count = requests .. request .. ',', request_count + 1
  if request_count > 32 then
    requests, request_count = string.sub(requests, (string.find(requests, ',', 2, true))), 32
  end
  local sets_ttl = refresh_given ~= '' and explicit == ''
    and (tonumber(ttl) ~= tonumber(ttl_given) or refresh ~= refresh_given)
  if sets_ttl then
    ttl, refresh, expires = ttl_given, refresh_given, nil
  end
  if ttl ~= '' and (sets_ttl or refresh ~= 'never') then
    -- include renew
  end
  is_timed = length > 0 and pinned_count == 0 and not (renewed or sets_ttl)

  local entries, pins = {}, {}
  fields = {'requests', requests}
  for n = 1, count do
    local flag, position = string.sub(flags, n, n), string.format('%d', last + n)
    fields[2 * n + 1], fields[2 * n + 2] = ARGV[14 + n], position
    if flag == '2' or flag == '3' then
      pins[#pins + 1], pins[#pins + 2] = position, flag .. position .. ARGV[14 + count + n]
    else
      if n == count and is_plain and refresh ~= 'read' then flag = flag == '1' and '5' or '4' end
      entries[#entries + 1] = flag .. position .. ARGV[14 + count + n]
    end
  end
  last = last + count
  for first = 1, #entries, 1000 do
    local last = math.min(first + 999, #entries)
    if call('RPUSH', MESSAGES, unpack(entries, first, last)) ~= length + last then
      call('LTRIM', MESSAGES, 0, -1 - last)
      return redis.error_reply('AGENTDAMAGED its list of messages is missing or incomplete')
    end
  end
  for first = 1, #pins, 1000 do
    call('HSET', PINNED, unpack(pins, first, math.min(first + 999, #pins)))
  end
  if pinned_count > 0 then
    -- include write_tail_marker
  end
  local excess = limit ~= '' and messages - pinned - limit or 0
  if excess > 0 then
    -- include trim
  end
end
-- include save
return last
