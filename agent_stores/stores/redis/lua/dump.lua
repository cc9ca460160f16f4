-- position or ''. Replies nil, or the head's line, the milliseconds left, the calls that are open, the
-- position of the first entry, the entries from the list, and the pinned ones as
-- positions and entries in turn.

local t, problem = load()
if problem then
  return problem
elseif not t then
  return false
end
local upto = ARGV[1] == '' and t.last or math.min(t.last, tonumber(ARGV[1]))
local entries, pins = {}, {}
if upto > t.base and t.tail > t.base then
  entries = call('LRANGE', M, 0, int(upto - t.base - 1))
end
for _, position in ipairs(pins_between(t, 0, upto)) do
  pins[#pins + 1] = int(position)
  pins[#pins + 1] = call('HGET', H, 'p' .. int(position))
end
return {call('HGET', H, 'head'), call('PTTL', H), t.open, t.base + 1, entries, pins}
