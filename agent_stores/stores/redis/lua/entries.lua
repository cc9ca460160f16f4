-- An entry is a line and a body: flags,start,calls,results,created,tokens,name LF body. Behind the flags of the
-- last one may stand its position: see `mark_end`.

-- An entry's line, without its body.
local function parse(entry)
  local flags, start, calls, results, rest_at, created, tokens, name, body_at =
    string.match(entry, '^(%d)%d*,(%d*),([^,]*),([^,]*)(),([^,]*),(%d+),([^\n]*)\n()')
  return {
    entry = entry, cut = flags == '1' or flags == '3', pinned = flags > '1', start = start,
    calls = calls, results = results, rest_at = rest_at, created = created,
    tokens = tonumber(tokens), name = name, bytes = #entry - body_at + 1,
    linked = calls ~= '' or results ~= '',
  }
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
