-- Included. Removes `excess` of the oldest entries, up to a boundary; the rule is that of `thread_updates.trim_index`, 256
-- its MAX_RUN.
-- The list had `length` entries before those of `fields`.
local part, total = call('LRANGE', MESSAGES, 0, math.min(excess, 1000)), messages - pinned
local trimmed = (excess == total or part[excess + 1] and string.byte(part[excess + 1]) % 2 == 1) and excess
for first = excess, total - 1, 64 do
  if trimmed then break end
  for n, entry in ipairs(call('LRANGE', MESSAGES, first, first + 63)) do
    trimmed = trimmed or string.byte(entry) % 2 == 1 and first + n - 1
  end
end
if not trimmed then
  local first = math.max(0, excess - 256)
  for n, entry in ipairs(call('LRANGE', MESSAGES, first, excess - 1)) do
    trimmed = string.byte(entry) % 2 == 1 and first + n - 1 or trimmed or excess
  end
end
if trimmed > length then  -- of the new ids, some go again
  for first = 1, #fields, 1000 do
    call('HSET', META, unpack(fields, first, math.min(first + 999, #fields)))
  end
  fields = {}
end
while trimmed > 0 do
  local ids = {}
  for n = 1, math.min(trimmed, #part) do
    local tokens, id, body_at = string.match(part[n], '^%d+,[^,]*,(%d+),([^\n]*)\n()')
    ids[n], total_tokens, total_bytes = id, total_tokens - tokens, total_bytes - #part[n] + body_at - 1
  end
  call('HDEL', META, unpack(ids))
  call('LTRIM', MESSAGES, #ids, -1)
  messages, trimmed = messages - #ids, trimmed - #ids
  part = trimmed > 0 and call('LRANGE', MESSAGES, 0, math.min(trimmed, 1000) - 1)
end
