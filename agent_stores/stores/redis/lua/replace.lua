-- an entry, thread id. Replies 1, or 0 when no entry has its name.

local t, problem = load()
if problem then
  return problem
end
local row, id = parse(ARGV[1]), ARGV[2]
local position = t and tonumber(call('HGET', H, '#' .. row.name) or nil)
if not position then
  return 0
end
local old = parse(fetch(t, position))
count(t, old, -1)
count(t, row, 1)
if old.linked or row.linked then
  local changed = {[position] = row}
  recut(t, tonumber(old.start) or position, {}, changed)
  row = changed[position]
else
  row.cut = old.cut
end
local entry, is_new_list = build(row), t.tail == t.base
if old.pinned == row.pinned then
  store(t, position, entry)
elseif row.pinned then
  call('HSET', H, 'p' .. int(position), entry)
  call('LSET', M, index(t, position), '')
  local pins = pins_between(t, 0, t.last)
  pins[#pins + 1] = position
  set_pins(t, pins)
  trim_ends(t)
else
  local pins = {}
  for _, other in ipairs(pins_between(t, 0, t.last)) do
    if other ~= position then
      pins[#pins + 1] = other
    end
  end
  set_pins(t, pins)
  if is_new_list or position > t.tail then
    push(t, {{pinned = false, position = position, entry = entry}})
  elseif position > t.base then
    call('LSET', M, index(t, position), entry)
  else
    local fill = {}
    for _ = position + 1, t.base do
      fill[#fill + 1] = ''
    end
    in_parts('LPUSH', M, fill, 500)
    call('LPUSH', M, entry)
    t.base = position - 1
  end
  call('HDEL', H, 'p' .. int(position))
end
local due = due_after_write(t, is_new_list)
save(t)
expire(id, due)
return 1
