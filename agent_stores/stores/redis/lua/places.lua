-- Entries and their places: in the list, or in the head for pinned ones.

-- Put entries that are not pinned behind the list's end; positions between are filled with empty entries.
-- False when the list is not there that should be.
local function push(t, rows)
  local buffer, is_new = {}, t.tail == t.base
  for _, row in ipairs(rows) do
    if not row.pinned then
      if t.tail == t.base then
        t.base, t.tail = row.position - 1, row.position - 1
      end
      for _ = t.tail + 1, row.position - 1 do
        buffer[#buffer + 1] = ''
      end
      buffer[#buffer + 1] = row.entry
      t.tail = row.position
    end
  end
  local length = 0
  for first = 1, #buffer, 500 do
    local last = math.min(first + 499, #buffer)
    length = call(is_new and 'RPUSH' or 'RPUSHX', M, unpack(buffer, first, last))
    if length == 0 then
      return false
    end
  end
  if is_new and length > #buffer then  -- what was left of a thread whose head is gone
    call('LTRIM', M, -#buffer, -1)
  end
  return true
end

-- Take empty entries off both ends of the list.
local function trim_ends(t)
  while t.tail > t.base and call('LINDEX', M, -1) == '' do
    call('RPOP', M)
    t.tail = t.tail - 1
  end
  while t.tail > t.base do
    local part, empty = range(t, t.base + 1, math.min(t.tail, t.base + 32)), 0
    while part[empty + 1] == '' do
      empty = empty + 1
    end
    if empty == 0 then
      return
    end
    call('LTRIM', M, empty, -1)
    t.base = t.base + empty
  end
  t.base, t.tail = t.last, t.last
end

local function is_pinned(t, position)
  return string.find(',' .. t.pins .. ',', ',' .. int(position) .. ',', 1, true) ~= nil
end

local function set_pins(t, positions)
  table.sort(positions)
  for n = 1, #positions do
    positions[n] = int(positions[n])
  end
  t.pins = table.concat(positions, ',')
end

local function fetch(t, position)
  if is_pinned(t, position) then
    return call('HGET', H, 'p' .. int(position))
  end
  return call('LINDEX', M, index(t, position))
end

-- Write an entry again where it stands.
local function store(t, position, entry)
  if is_pinned(t, position) then
    call('HSET', H, 'p' .. int(position), entry)
  else
    call('LSET', M, index(t, position), entry)
  end
end

-- Forget calls of entries that are gone.
local function drop_trimmed(t, open)
  for id, position in pairs(open) do
    if position <= t.base and not is_pinned(t, position) then
      open[id] = nil
    end
  end
end

-- All rows of a range, in order; `rows[n].position` says where they stand.
local function gather(t, from, to)
  local rows = {}
  local first = math.max(from, t.base + 1)
  local list = range(t, first, math.min(to, t.tail))
  for n = 1, #list do
    if list[n] ~= '' then
      local row = parse(list[n])
      row.position = first + n - 1
      rows[#rows + 1] = row
    end
  end
  local pins = pins_between(t, from, to)
  for _, position in ipairs(pins) do
    local row = parse(fetch(t, position))
    row.position = position
    rows[#rows + 1] = row
  end
  if #pins > 0 then
    table.sort(rows, function(one, other) return one.position < other.position end)
  end
  return rows
end
