-- Work out again, from a position on, where cuts may fall, when rows are taken out or change. `gone` holds
-- the positions of the former, `changed` the new rows of the latter. It walks back from the end to the state
-- before the position, and forward again; a row that reaches further back than that makes it begin there.
local function recut(t, from, gone, changed)
  local rows = gather(t, from, t.last)
  local before = parse_open(t.open)
  for n = #rows, 1, -1 do
    unfollow(before, rows[n])
  end
  drop_trimmed(t, before)
  while true do
    local open, further, after = {}, nil, {}
    for id, position in pairs(before) do
      open[id] = position
    end
    for _, row in ipairs(rows) do
      if not gone[row.position] then
        local source = changed[row.position] or row
        local fresh = {
          entry = source.entry, rest_at = source.rest_at, pinned = source.pinned, position = row.position,
          calls = source.calls, results = source.results, cut = true, old = row,
        }
        after[#after + 1] = fresh
        local start = follow(open, row.position, fresh)
        if start then
          if start + 1 < from and fresh.start ~= row.start then
            further = math.min(further or start, start)
          end
          for n = #after, 1, -1 do
            if after[n].position <= start then
              break
            end
            after[n].cut = false
          end
        end
      end
    end
    if not further then
      t.open = format_open(open)
      for _, row in ipairs(after) do
        if changed[row.position] then
          changed[row.position] = row
        else
          local entry = build(row)
          if entry ~= row.old.entry then
            store(t, row.position, entry)
          end
        end
      end
      return
    end
    local older = gather(t, further, from - 1)
    for n = #older, 1, -1 do
      unfollow(before, older[n])
    end
    drop_trimmed(t, before)
    for _, row in ipairs(rows) do
      older[#older + 1] = row
    end
    rows, from = older, further
  end
end

-- Take rows out of the thread.
local function take_out(t, rows, id)
  local from, gone, fields = nil, {}, {}
  for _, row in ipairs(rows) do
    gone[row.position] = true
    fields[#fields + 1] = '#' .. row.name
    count(t, row, -1)
    if row.linked then
      local start = tonumber(row.start) or row.position
      from = math.min(from or start, start)
    end
  end
  in_parts('HDEL', H, fields, 500)  -- first, as it is allowed also where memory is full
  if from then
    recut(t, from, gone, {})
  end
  local pins, has_pinned = {}, false
  for _, row in ipairs(rows) do
    if row.pinned then
      has_pinned = true
      call('HDEL', H, 'p' .. int(row.position))
    else
      call('LSET', M, index(t, row.position), '')
    end
  end
  if has_pinned then
    for _, position in ipairs(pins_between(t, 0, t.last)) do
      if not gone[position] then
        pins[#pins + 1] = position
      end
    end
    set_pins(t, pins)
  end
  trim_ends(t)
  t.recent = ''
  local due = due_after_write(t, false)
  save(t)
  expire(id, due)
end
