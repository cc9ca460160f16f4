-- Remove the entries that are over the limit from the list's front, up to a boundary: the rule is that of
-- `agent_stores.thread_updates.trim_index`.
local function trim(t, excess)
  local length, first, step, count = t.messages - t.pinned, excess, 1, nil
  while first < length and not count and excess > 0 do
    for n, entry in ipairs(call('LRANGE', MESSAGES, first, first + step - 1)) do
      count = count or string.find(entry, '^%d+,e?b') and first + n - 1
    end
    first, step = first + step, 64
  end
  if not count and excess > 0 and excess < length then
    local start = math.max(0, excess - 256)
    for n, entry in ipairs(call('LRANGE', MESSAGES, start, excess - 1)) do
      count = string.find(entry, '^%d+,e?b') and start + n - 1 or count
    end
  end
  count = count or excess
  while count > 0 do
    local ids, part = {}, call('LRANGE', MESSAGES, 0, math.min(count, 1000) - 1)
    for n, entry in ipairs(part) do
      local tokens, id, body_at = string.match(entry, '^%d+,%a*,[^,]*,(%d+),([^\n]*)\n()')
      ids[n], t.tokens, t.bytes = id, t.tokens - tokens, t.bytes - #entry + body_at - 1
    end
    call('HDEL', IDS, unpack(ids))
    call('LTRIM', MESSAGES, #part, -1)
    t.messages, count = t.messages - #part, count - #part
  end
end
