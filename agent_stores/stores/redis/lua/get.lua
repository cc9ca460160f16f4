-- a name. Replies nil, or the position, whether it is pinned, and the entry.

local t, problem = load()
if problem then
  return problem
end
local position = t and tonumber(call('HGET', H, '#' .. ARGV[1]) or nil)
if not position then
  return false
end
return {position, is_pinned(t, position) and 1 or 0, fetch(t, position)}
