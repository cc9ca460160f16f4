-- Remove `excess` of the oldest entries, up to a boundary; the rule is that of `thread_updates.trim_index`.
local function trim(t, excess)
  local function boundary(first, last, is_last)
    local index = nil
    for n, entry in ipairs(call('LRANGE', MESSAGES, first, last)) do
      if (is_last or not index) and string.find(entry, '^%d+,e?b') then index = first + n - 1 end
    end
    return index
  end
  local part, length = call('LRANGE', MESSAGES, 0, math.min(excess, 1000)), t.messages - t.pinned
  local count = string.find(part[excess + 1] or '', '^%d+,e?b') and excess
  for first = excess, count and 0 or length - 1, 64 do
    count = count or boundary(first, first + 63)
  end
  count = count or excess < length and boundary(math.max(0, excess - 256), excess - 1, true) or excess
  while count > 0 do
    local ids = {}
    for n = 1, math.min(count, #part) do
      local tokens, id, body_at = string.match(part[n], '^%d+,%a*,[^,]*,(%d+),([^\n]*)\n()')
      ids[n], t.tokens, t.bytes = id, t.tokens - tokens, t.bytes - #part[n] + body_at - 1
    end
    call('HDEL', IDS, unpack(ids))
    call('LTRIM', MESSAGES, #ids, -1)
    t.messages, count = t.messages - #ids, count - #ids
    part = count > 0 and call('LRANGE', MESSAGES, 0, math.min(count, 1000) - 1)
  end
end
