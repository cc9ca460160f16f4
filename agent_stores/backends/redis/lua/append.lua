-- Append rows and trim the thread: see `agent_stores.backend.Appender`. The first write is one that the server
-- refuses when its memory is full, so that the script is refused as a whole.
--
-- Replies the last position; a list of it alone when another one is expected; nil when there is no thread and
-- none may be created.

local request, expected, limit, ttl, refresh, create, confirm, thread_id = unpack(ARGV, 1, 8)
local t, problem = load_thread()
if problem or not t and create == '' then
  return problem or false
end
local is_new = not t
t = t or {
  layout = 2, version = NOW_US, last_position = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, ttl = '',
  ttl_refresh = 'write', ttl_explicit = '', expires = '', requests = ',', request_count = 0, commit = '',
}
local is_known = string.find(t.requests, ',' .. request .. ',', 1, true)

-- The rows that are not there already, with their positions.
local position, entries, pinned, ids, seen, first_us, last_us = t.last_position, {}, {}, {}, {}, nil, nil
for first = 9, is_known and 0 or #ARGV, 1000 do
  local names = {}
  for n = first, math.min(first + 999, #ARGV) do
    names[#names + 1] = string.match(ARGV[n], '^[^\n]*,([^,\n]*)\n')
  end
  local found = call('HMGET', IDS, unpack(names))
  for n, name in ipairs(names) do
    if not found[n] and not seen[name] then
      local row = ARGV[first + n - 1]
      local flags, created, tokens, body_at = string.match(row, '^(%a*),([^,]*),(%d+),[^\n]*\n()')
      seen[name], position = true, position + 1
      ids[#ids + 1], ids[#ids + 2] = name, position
      t.bytes, t.tokens = t.bytes + #row - body_at + 1, t.tokens + tokens
      first_us, last_us = first_us or created, created
      row = string.format('%d,%s', position, row)
      if string.find(flags, 'p', 1, true) then
        pinned[#pinned + 1], pinned[#pinned + 2] = position, row
      else
        entries[#entries + 1] = row
      end
    end
  end
end
if #ids == 0 then
  if confirm ~= '' and not is_new then
    call('HSET', META, 'version', t.version)  -- so that WAIT covers the earlier write
  end
  return t.last_position
elseif expected ~= '' and tonumber(expected) ~= t.last_position then
  return {t.last_position}
end

local times = {t.last_position == 0 and 'first_us' or 'last_us', first_us, 'last_us', last_us}
t.last_position, t.messages, t.pinned = position, t.messages + #ids / 2, t.pinned + #pinned / 2
t.version, t.requests, t.request_count = t.version + 1, t.requests .. request .. ',', t.request_count + 1
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
save(t, thread_id, is_new, times)
return t.last_position
