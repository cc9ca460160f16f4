-- after, before or '', last or '', first or '', thread id. Replies nil without a thread, else: whether there
-- are older ones, whether a cut may fall behind, the position of the first entry, how many entries to skip,
-- the entries from the list, the pinned ones as positions and entries in turn, and whether it is plain.

local after, before, last, first, id = unpack(ARGV, 1, 5)
local t, problem = load()
if problem then
  return problem
elseif not t then
  return false
end
local low, high = tonumber(after) + 1, before == '' and t.last or tonumber(before) - 1
local from, to = math.max(low, t.base + 1), math.min(high, t.tail)

local function is_cut(entry)
  local flags = string.byte(entry)
  return flags == 49 or flags == 51
end

-- The newest position below one, in the range, that holds an entry (where a cut may fall, if asked).
local function newest_below(position, at_cut)
  while position > from do
    local start = math.max(from, position - 32)
    local part = range(t, start, position - 1)
    for n = #part, 1, -1 do
      if part[n] ~= '' and (not at_cut or is_cut(part[n])) then
        return start + n - 1
      end
    end
    position = start
  end
end

local function has_below(position)
  if from == t.base + 1 then
    return position > from  -- the first of the list is no empty one
  end
  return newest_below(position) ~= nil
end

local entries, skip, older = {}, 0, false
if last ~= '' then
  local wanted = tonumber(last)
  local start, live = to + 1, 0
  while live < wanted and start > from do
    local lower = math.max(from, start - (wanted - live))
    local part = range(t, lower, start - 1)
    for n = 1, #part do
      live = live + (part[n] ~= '' and 1 or 0)
    end
    if #entries == 0 then
      entries = part
    else
      for n = 1, #entries do
        part[#part + 1] = entries[n]
      end
      entries = part
    end
    start = lower
  end
  older = has_below(start)
  if older and wanted > 0 then
    local kept = nil
    for n = 1, #entries do
      if entries[n] ~= '' and is_cut(entries[n]) then
        kept = n
        break
      end
    end
    if kept then
      skip = kept - 1
    else
      local at = newest_below(start, true)
      if at then
        local part = range(t, at, start - 1)
        for n = 1, #entries do
          part[#part + 1] = entries[n]
        end
        entries, start = part, at
        older = has_below(start)
      end
    end
  end
  from = start
elseif first ~= '' then
  local wanted = tonumber(first)
  local live, position = 0, from
  while live < wanted and position <= to do
    local part = range(t, position, math.min(to, position + wanted - live - 1))
    for n = 1, #part do
      live = live + (part[n] ~= '' and 1 or 0)
      entries[#entries + 1] = part[n]
    end
    position = position + #part
  end
else
  entries = range(t, from, to)
end

local pins = {}
for _, position in ipairs(pins_between(t, low, high)) do
  pins[#pins + 1] = int(position)
  pins[#pins + 1] = call('HGET', H, 'p' .. int(position))
end

-- The entry behind the range says whether a cut may fall there.
local behind = nil
if high < t.last then
  local place = nil
  local position = math.max(high + 1, low, t.base + 1)
  while position <= t.tail and not place do
    local part = range(t, position, math.min(t.tail, position + 15))
    for n = 1, #part do
      if part[n] ~= '' then
        place, behind = position + n - 1, part[n]
        break
      end
    end
    position = position + 16
  end
  local pin = pins_between(t, math.max(high + 1, low), t.last)[1]
  if pin and (not place or pin < place) then
    behind = call('HGET', H, 'p' .. int(pin))
  end
end

if t.refresh == 'r' then
  local due = due_in(t, tonumber(t.ttl))
  if due and due.known then
    save(t)
  end
  expire(id, due)
end
return {older and 1 or 0, (not behind or is_cut(behind)) and 1 or 0, from, skip, entries, pins, is_plain(t) and 1 or 0}
