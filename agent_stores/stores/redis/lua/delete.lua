-- thread id, names. Replies how many there were.

local t, problem = load()
if problem then
  return problem
elseif not t then
  return 0
end
local rows, seen = {}, {}
for n = 2, #ARGV do
  local position = not seen[ARGV[n]] and tonumber(call('HGET', H, '#' .. ARGV[n]) or nil)
  seen[ARGV[n]] = true
  if position then
    local row = parse(fetch(t, position))
    row.position = position
    rows[#rows + 1] = row
  end
end
if #rows > 0 then
  take_out(t, rows, ARGV[1])
end
return #rows
