-- thread id, last position, first_us, last_us, ttl, refresh, by_hand, milliseconds left or -1, the calls that
-- are open, whether to work out the cuts, then positions and entries in turn, in order. Replies how many
-- entries there are, or -1 when there is such a thread.

local id, left = ARGV[1], tonumber(ARGV[8])
if call('EXISTS', H) == 1 then
  return -1
end
local t = new_thread()
t.last, t.first_us, t.last_us = tonumber(ARGV[2]), ARGV[3], ARGV[4]
t.ttl, t.refresh, t.by_hand, t.open = ARGV[5], ARGV[6], ARGV[7], ARGV[9]
t.base, t.tail = t.last, t.last
local rows, fields, pins = {}, {'head', ''}, {}
for n = 11, #ARGV, 2 do
  local row = parse(ARGV[n + 1])
  row.position = tonumber(ARGV[n])
  rows[#rows + 1] = row
  count(t, row, 1)
  fields[#fields + 1], fields[#fields + 2] = '#' .. row.name, int(row.position)
  if row.pinned then
    fields[#fields + 1], fields[#fields + 2] = 'p' .. int(row.position), row.entry
    pins[#pins + 1] = row.position
  end
end
if #rows > 0 then
  t.last_us = rows[#rows].created
end
in_parts('HSET', H, fields, 1000)
push(t, rows)
set_pins(t, pins)
if ARGV[10] == '1' then
  t.open = ''
  for _, row in ipairs(rows) do
    row.start = ''
  end
  recut(t, 1, {}, {})
end
local due = due_in(t, left)
save(t)
call('ZADD', I, 0, id)
if due then
  expire(id, due)
else
  call('PERSIST', I)
end
return #rows
