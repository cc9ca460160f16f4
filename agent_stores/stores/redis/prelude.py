"""What the Lua scripts share. `scripts` puts together, for each operation, the parts that it needs.

All scripts take the same keys (see `keys`): H the thread's head, M its list of entries, I the index of its
bucket, and X the times at which threads of the bucket expire. The first write of each script that adds
anything is a command that the server refuses when its memory is full, so that a script is refused as a whole.

An entry is one line and the message's body; docs/redis.md describes it::

    flags,start,calls,results,created,tokens,name \n body

Positions and counts are Lua numbers, exact up to 2^53. Times in microseconds stay text: they can be larger.
"""

from __future__ import annotations

LAYOUT = 1
"""The version of the layout. A thread with a newer one is refused."""

RECENT = 16
"""How many batches a thread remembers; the same as `planning.RECENT_BATCHES`."""

HEAD = """
local H, M, I, X = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call

local function int(number)
  return string.format('%.0f', number)
end

-- Run a command on many arguments, a part at a time: a Lua call takes some thousands of them at most.
local function in_parts(command, key, arguments, step)
  for first = 1, #arguments, step do
    call(command, key, unpack(arguments, first, math.min(first + step - 1, #arguments)))
  end
end

-- The head as a table; nothing when there is no such thread; nil and an error when it cannot be used.
local function parse_head(text)
  local version, rest = string.match(text, '^(%d+),(.*)$')
  if version ~= '{layout}' then
    return nil, redis.error_reply('AGENTVERSION ' .. tostring(version))
  end
  local last, base, tail, messages, pinned, bytes, tokens, first_us, last_us, ttl, refresh, by_hand =
    string.match(rest, '^(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%-?%d*),(%-?%d*),(%d*),(%a),(%d)$')
  if not last then
    return nil, redis.error_reply('AGENTDAMAGED its head is malformed')
  end
  return {
    last = tonumber(last), base = tonumber(base), tail = tonumber(tail), messages = tonumber(messages),
    pinned = tonumber(pinned), bytes = tonumber(bytes), tokens = tonumber(tokens),
    first_us = first_us, last_us = last_us, ttl = ttl, refresh = refresh, by_hand = by_hand,
  }
end

local function load()
  local found = call('HMGET', H, 'head', 'recent', 'open', 'pins')
  if not found[1] then
    return nil
  end
  local t, problem = parse_head(found[1])
  if problem then
    return nil, problem
  end
  if call('LLEN', M) ~= t.tail - t.base then
    return nil, redis.error_reply('AGENTDAMAGED its list has lost entries')
  end
  t.recent, t.open, t.pins = found[2] or '', found[3] or '', found[4] or ''
  t.saved = {recent = t.recent, open = t.open, pins = t.pins}
  return t
end

local function new_thread()
  return {
    last = 0, base = 0, tail = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, first_us = '', last_us = '',
    ttl = '', refresh = 'w', by_hand = '0', recent = '', open = '', pins = '',
    saved = {recent = '', open = '', pins = ''},
  }
end

local function save(t)
  local fields = {
    'head', table.concat({
      '{layout}', int(t.last), int(t.base), int(t.tail), int(t.messages), int(t.pinned), int(t.bytes),
      int(t.tokens), t.first_us, t.last_us, t.ttl, t.refresh, t.by_hand,
    }, ','),
  }
  local gone = {}
  for name, before in pairs(t.saved) do
    if t[name] ~= before then
      if t[name] == '' then
        gone[#gone + 1] = name
      else
        fields[#fields + 1], fields[#fields + 2] = name, t[name]
      end
    end
  end
  call('HSET', H, unpack(fields))
  if #gone > 0 then
    call('HDEL', H, unpack(gone))
  end
end

-- The positions of the pinned entries within a range, in order.
local function pins_between(t, from, to)
  local found = {}
  for position in string.gmatch(t.pins, '%d+') do
    position = tonumber(position)
    if position >= from and position <= to then
      found[#found + 1] = position
    end
  end
  return found
end
""".replace("{layout}", str(LAYOUT))

TIME = """
local function now_ms()
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- Let all keys of the thread end at a time, and remember that time in its bucket. In passing, a few threads
-- of the bucket whose time is over are taken out of its index; the bucket ends with its last thread.
local function expire_at(id, at, now)
  local when = int(at)
  call('ZADD', X, when, id)
  call('PEXPIREAT', H, when)
  call('PEXPIREAT', M, when)
  local over = call('ZRANGEBYSCORE', X, '-inf', int(now), 'LIMIT', 0, 4)
  if #over > 0 then
    call('ZREM', X, unpack(over))
    call('ZREM', I, unpack(over))
  end
  if call('PTTL', X) < at - now then
    call('PEXPIREAT', X, when)
    if call('ZCARD', X) >= call('ZCARD', I) then
      call('PEXPIREAT', I, when)
    end
  end
end

local function renew(t, id)
  if t.ttl ~= '' then
    local now = now_ms()
    expire_at(id, now + tonumber(t.ttl), now)
  end
end

local function never_expire(id)
  call('PERSIST', H)
  call('PERSIST', M)
  call('ZREM', X, id)
  call('PERSIST', I)
end

-- After a write: renew the time-to-live, or give what is left of it to a list that came into being.
local function written(t, id, is_new_list)
  if t.ttl == '' then
    return
  end
  if t.refresh ~= 'n' then
    renew(t, id)
  elseif is_new_list then
    local now, left = now_ms(), call('PTTL', H)
    if left >= 0 then
      expire_at(id, now + left, now)
    end
  end
end
"""

ENTRIES = """
-- An entry's line, without its body.
local function parse(entry)
  local flags, start, calls, results, rest_at, tokens, name, body_at =
    string.match(entry, '^(%d),(%d*),([^,]*),([^,]*)(),[^,]*,(%d+),([^\\n]*)\\n()')
  return {
    entry = entry, cut = flags == '1' or flags == '3', pinned = flags > '1', start = start,
    calls = calls, results = results, rest_at = rest_at, tokens = tonumber(tokens), name = name,
    bytes = #entry - body_at + 1, linked = calls ~= '' or results ~= '',
  }
end

local function created(row)
  return string.match(row.entry, '^,([^,]*),', row.rest_at)
end

local function is_cut(entry)
  local flags = string.byte(entry)
  return flags == 49 or flags == 51
end

-- The entry of a row, with what was worked out about it.
local function build(row)
  local flags = tostring((row.cut and 1 or 0) + (row.pinned and 2 or 0))
  return table.concat({flags, row.start, row.calls, row.results}, ',') .. string.sub(row.entry, row.rest_at)
end

local function count(t, row, sign)
  t.messages = t.messages + sign
  t.pinned = t.pinned + (row.pinned and sign or 0)
  t.bytes = t.bytes + sign * row.bytes
  t.tokens = t.tokens + sign * row.tokens
end
"""

LINKS = """
local function parse_open(text)
  local open = {}
  for id, position in string.gmatch(text, '([^&=]+)=(%d+)') do
    open[id] = tonumber(position)
  end
  return open
end

local function format_open(open)
  local parts = {}
  for id, position in pairs(open) do
    parts[#parts + 1] = id .. '=' .. int(position)
  end
  return table.concat(parts, '&')
end

-- Take a row into account, as `retention.follow_links` does. Beside each result it notes the position of the
-- call that it answers, and beside each call the one of the same id that was open before: `unfollow` goes back.
local function follow(open, position, row)
  local own, answered, start = {}, {}, nil
  for id in string.gmatch(row.calls, '([^&=]+)=') do
    own[id] = true
  end
  local results = {}
  for id in string.gmatch(row.results, '([^&=]+)=') do
    local at = nil
    if own[id] then
      answered[id] = true
    else
      at, open[id] = open[id], nil
    end
    if at and (not start or at < start) then
      start = at
    end
    results[#results + 1] = id .. '=' .. (at and int(at) or '')
  end
  local calls = {}
  for id in string.gmatch(row.calls, '([^&=]+)=') do
    calls[#calls + 1] = id .. '=' .. (open[id] and int(open[id]) or '')
    open[id] = position
  end
  for id in pairs(answered) do
    open[id] = nil
  end
  row.start = start and int(start) or ''
  row.calls, row.results = table.concat(calls, '&'), table.concat(results, '&')
  return start
end

local function unfollow(open, row)
  local before = {}
  for id, at in string.gmatch(row.calls, '([^&=]+)=(%d*)') do
    if before[id] == nil then
      before[id] = tonumber(at) or false
    end
  end
  for id, at in string.gmatch(row.results, '([^&=]+)=(%d+)') do
    before[id] = tonumber(at)
  end
  for id, at in pairs(before) do
    open[id] = at or nil
  end
end
"""

PLACES = """
-- Put entries that are not pinned behind the list's end; positions between are filled with empty entries.
local function push(t, rows)
  local buffer = {}
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
  in_parts('RPUSH', M, buffer, 500)
end

-- Take empty entries off both ends of the list.
local function trim_ends(t)
  local function strip(from, to, direction)
    while t.tail > t.base do
      local part = call('LRANGE', M, from, to)
      local empty = 0
      for n = 1, #part do
        if part[direction > 0 and n or #part + 1 - n] ~= '' then
          break
        end
        empty = empty + 1
      end
      if empty == 0 then
        return
      elseif direction > 0 then
        call('LTRIM', M, empty, -1)
        t.base = t.base + empty
      else
        call('LTRIM', M, 0, -1 - empty)
        t.tail = t.tail - empty
      end
    end
  end
  strip(0, 31, 1)
  strip(-32, -1, -1)
  if t.tail == t.base then
    t.base = t.last
    t.tail = t.last
  end
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
  return call('LINDEX', M, int(position - t.base - 1))
end

-- Write an entry again where it stands.
local function store(t, position, entry)
  if is_pinned(t, position) then
    call('HSET', H, 'p' .. int(position), entry)
  else
    call('LSET', M, int(position - t.base - 1), entry)
  end
end

-- All rows of a range, in order; `rows[n].position` says where they stand.
local function gather(t, from, to)
  local rows = {}
  local first = math.max(from, t.base + 1)
  local list = call('LRANGE', M, int(first - t.base - 1), int(to - t.base - 1))
  if first > math.min(to, t.tail) then
    list = {}
  end
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
"""

RECUT = """
-- Work out again, from a position on, where cuts may fall, when rows are taken out or change. `gone` holds the
-- positions of the former, `changed` the new rows of the latter. It walks back from the end to the state before
-- the position, and forward again; a row that reaches further back than that makes it begin there.
local function recut(t, from, gone, changed)
  local rows = gather(t, from, t.last)
  local before = parse_open(t.open)
  for n = #rows, 1, -1 do
    unfollow(before, rows[n])
  end
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
    if row.pinned then
      fields[#fields + 1] = 'p' .. int(row.position)
    end
    count(t, row, -1)
    if row.linked then
      local start = tonumber(row.start) or row.position
      from = math.min(from or start, start)
    end
  end
  if from then
    recut(t, from, gone, {})
  end
  in_parts('HDEL', H, fields, 500)
  local pins, has_pinned = {}, false
  for _, row in ipairs(rows) do
    if row.pinned then
      has_pinned = true
    else
      call('LSET', M, int(row.position - t.base - 1), '')
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
  save(t)
  written(t, id, false)
end
"""
