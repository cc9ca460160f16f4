-- Calls and their results: the ids of calls that have no result yet, with the positions of their messages.

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
-- call that it answers, and beside each call the one of the same id that was open before, for `unfollow`.
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
