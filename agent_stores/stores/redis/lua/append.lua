-- batch, expected position or '', limit or '', ttl in milliseconds or '' for none, how it is renewed or '' to
-- leave it, thread id, entries. Replies the last position, or, when another one is expected, a
-- list of it alone.

local batch, expected, limit, ttl, refresh, id = unpack(ARGV, 1, 6)
local rows, names, seen = {}, {}, {}
for n = 7, #ARGV do
  local row = parse(ARGV[n])
  rows[#rows + 1], names[#names + 1] = row, '#' .. row.name
end
local t, problem, found = load_with(unpack(names, 1, math.min(#names, 1000)))
if problem then
  return problem
end
local is_new = not t
t = t or new_thread()
-- Batches have names of 18 characters, the newest first.
if string.find(t.recent, batch, 1, true) then
  return t.last
end
if not is_new then
  for n = 1, math.min(#names, 1000) do
    seen[rows[n].name] = found[n + 4] and true
  end
  for first = 1001, #names, 1000 do
    local last = math.min(first + 999, #names)
    found = call('HMGET', H, unpack(names, first, last))
    for n = first, last do
      seen[rows[n].name] = found[n - first + 1] and true
    end
  end
end
local fresh = {}
for _, row in ipairs(rows) do
  if not seen[row.name] then
    seen[row.name] = true
    fresh[#fresh + 1] = row
    row.position = t.last + #fresh
  end
end
if #fresh == 0 then
  return t.last
end
if expected ~= '' and tonumber(expected) ~= t.last then
  return {t.last}
end

-- Where cuts may fall among the new rows, and from where on they may not among the old ones.
local first_new, open, closed_from = t.last + 1, nil, nil
for n, row in ipairs(fresh) do
  if row.linked then
    open = open or parse_open(t.open)
    local start = follow(open, row.position, row)
    if start then
      for k = math.max(1, start + 2 - first_new), n do
        fresh[k].cut = false
      end
      if start + 1 < first_new then
        closed_from = math.min(closed_from or start + 1, start + 1)
      end
    end
  end
  count(t, row, 1)
end
if open then
  local size, newest = 0, 0
  for _, position in pairs(open) do
    size, newest = size + 1, math.max(newest, position)
  end
  while size > 256 do
    local oldest = nil
    for call_id, position in pairs(open) do
      if position < newest and (not oldest or position < open[oldest]) then
        oldest = call_id
      end
    end
    if not oldest then
      break  -- those of the newest message are never forgotten
    end
    open[oldest], size = nil, size - 1
  end
end

-- The first write: refused where the server's memory is full.
local is_new_list, last_old = t.tail == t.base, t.last
for _, row in ipairs(fresh) do
  if row.linked or not row.cut then
    row.entry = build(row)
  end
end
if not push(t, fresh) then
  return redis.error_reply('AGENTDAMAGED its list is gone')
end
if closed_from then
  for _, row in ipairs(gather(t, closed_from, last_old)) do
    if row.cut then
      row.cut = false
      store(t, row.position, build(row))
    end
  end
end
t.last = t.last + #fresh
t.first_us = t.first_us == '' and fresh[1].created or t.first_us
t.last_us = fresh[#fresh].created

-- Trim: drop what is over the limit from the front, up to a place where a cut may fall.
local excess = limit == '' and 0 or t.messages - t.pinned - tonumber(limit)
if excess > 0 then
  local dropped, live, keep, back, wanted = {}, 0, nil, nil, nil
  local at, size, step = 0, t.tail - t.base, excess + 1
  while at < size and not keep do
    local part = call('LRANGE', M, at, at + step - 1)
    for n = 1, #part do
      local entry = part[n]
      if entry ~= '' then
        if live >= excess then
          wanted = wanted or at
          if is_cut(entry) then
            keep = at
            break
          end
        elseif is_cut(entry) then
          back = at
        end
        live = live + 1
      end
      dropped[#dropped + 1] = entry
      at = at + 1
    end
    step = 128
  end
  keep = keep or (wanted and (back or wanted)) or size
  local gone = {}
  for n = 1, keep do
    if dropped[n] ~= '' then
      local tokens, name, body_at =
        string.match(dropped[n], '^%d+,%d*,[^,]*,[^,]*,[^,]*,(%d+),([^\n]*)\n()')
      t.messages, t.tokens = t.messages - 1, t.tokens - tokens
      t.bytes = t.bytes - #dropped[n] + body_at - 1
      gone[#gone + 1] = '#' .. name
    end
  end
  in_parts('HDEL', H, gone, 1000)
  local start = t.last + 1
  if keep == size then
    call('DEL', M)
    t.base = t.tail
  else
    if keep > 0 then
      call('LTRIM', M, keep, -1)
    end
    t.base = t.base + keep
    start = t.base + 1
  end
  if open or t.open ~= '' then
    open = open or parse_open(t.open)
    for call_id, position in pairs(open) do
      if position < start then
        open[call_id] = nil
      end
    end
  end
end

if open then
  t.open = format_open(open)
end
t.recent = string.sub(batch .. t.recent, 1, 18 * 16)
local fields = {}
for _, row in ipairs(fresh) do
  if row.pinned then
    t.pins = t.pins .. (t.pins == '' and '' or ',') .. int(row.position)
    fields[#fields + 1], fields[#fields + 2] = 'p' .. int(row.position), row.entry
  end
  if row.pinned or row.position > t.base then  -- not trimmed already
    fields[#fields + 1], fields[#fields + 2] = '#' .. row.name, int(row.position)
  end
end

local due = nil
if refresh ~= '' and t.by_hand == '0' and (t.ttl ~= ttl or t.refresh ~= refresh) then
  if ttl == '' and t.ttl ~= '' then
    never_expire(t, id)
  end
  t.ttl, t.refresh, t.known = ttl, refresh, ''
  due = due_in(t, tonumber(ttl))
else
  due = due_after_write(t, is_new_list)
end
save(t, fields)
if is_new then
  if t.tail == t.base then
    call('DEL', M)  -- what may be left of a thread whose head is gone
  end
  call('ZADD', I, 0, id)
  if not due then
    call('PERSIST', I)
  end
end
expire(id, due)
return t.last
