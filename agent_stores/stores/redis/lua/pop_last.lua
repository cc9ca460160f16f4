-- thread id. Replies nil, or the position and the entry.

local t, problem = load()
if problem then
  return problem
elseif not t or t.tail == t.base then
  return false
end
local row = parse(fetch(t, t.tail))
row.position = t.tail
take_out(t, {row}, ARGV[1])
return {row.position, row.entry}
