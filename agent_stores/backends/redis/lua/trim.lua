-- Remove `excess` of the oldest entries, up to a boundary; the rule is that of `thread_updates.trim_index`. Returns the
-- fields of the meta hash that are still to be written of `fields`; the list had `old_length` entries before them.
local function trim(t, excess, old_length, fields)
  local function boundary(first, last, is_last)
    local index = nil
    for n, entry in ipairs(call('LRANGE', MESSAGES, first, last)) do
      if (is_last or not index) and string.byte(entry) % 2 == 1 then index = first + n - 1 end
    end
    return index
  end
  if excess <= 0 then return fields end
  local part, length = call('LRANGE', MESSAGES, 0, math.min(excess, 1000)), t.messages - t.pinned
  local count = part[excess + 1] and string.byte(part[excess + 1]) % 2 == 1 and excess
  for first = excess, count and 0 or length - 1, 64 do
    count = count or boundary(first, first + 63)
  end
  count = count or excess < length and boundary(math.max(0, excess - 256), excess - 1, true) or excess
  if count > old_length then  -- of the new ids, some go again
    in_parts('HSET', META, fields)
    fields = {}
  end
  while count > 0 do
    local ids = {}
    for n = 1, math.min(count, #part) do
      local tokens, id, body_at = string.match(part[n], '^%d+,[^,]*,(%d+),([^\n]*)\n()')
      ids[n], t.tokens, t.bytes = id, t.tokens - tokens, t.bytes - #part[n] + body_at - 1
    end
    call('HDEL', META, unpack(ids))
    call('LTRIM', MESSAGES, #ids, -1)
    t.messages, count = t.messages - #ids, count - #ids
    part = count > 0 and call('LRANGE', MESSAGES, 0, math.min(count, 1000) - 1)
  end
  return fields
end
