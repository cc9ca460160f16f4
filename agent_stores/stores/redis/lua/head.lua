-- What all scripts begin with. Their keys are H, the thread's head; M, its list of entries; I, the index of
-- its bucket; and X, the times at which threads of the bucket expire. docs/redis.md describes them.
--
-- The first write of a script that adds something is a command that the server refuses when its memory is
-- full, so that the script is refused as a whole.
--
-- Positions and counts are numbers, exact up to 2^53. Times in microseconds stay text: they can be larger.

local H, M, I, X = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call

-- A number as text. Positions and counts are put into text as they are, which is exact below 10^14.
local function int(number)
  return string.format('%d', number)
end

-- Run a command on many arguments, a part at a time: a Lua call takes some thousands of them at most.
local function in_parts(command, key, arguments, step)
  for first = 1, #arguments, step do
    call(command, key, unpack(arguments, first, math.min(first + step - 1, #arguments)))
  end
end

-- The head as a table; nothing when there is no such thread; nil and an error when it cannot be used.
local function parse_head(text)
  local last, base, tail, messages, pinned, bytes, tokens, first_us, last_us, ttl, refresh, by_hand, known =
    string.match(
      text, '^1,(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%-?%d*),(%-?%d*),(%d*),(%a),(%d),(%d*)$'
    )
  if not last then
    local version = string.match(text, '^(%d+),')
    if version and version ~= '1' then
      return nil, redis.error_reply('AGENTVERSION ' .. version)
    end
    return nil, redis.error_reply('AGENTDAMAGED its head is malformed')
  end
  return {
    last = tonumber(last), base = tonumber(base), tail = tonumber(tail), messages = tonumber(messages),
    pinned = tonumber(pinned), bytes = tonumber(bytes), tokens = tonumber(tokens),
    first_us = first_us, last_us = last_us, ttl = ttl, refresh = refresh, by_hand = by_hand, known = known,
  }
end

-- The thread; with what is in further fields of the head, if asked.
local function load_with(...)
  local found = call('HMGET', H, 'head', 'recent', 'open', 'pins', ...)
  if not found[1] then
    return nil
  end
  local t, problem = parse_head(found[1])
  if problem then
    return nil, problem
  end
  t.recent, t.open, t.pins = found[2] or '', found[3] or '', found[4] or ''
  t.saved = {recent = t.recent, open = t.open, pins = t.pins}
  return t, nil, found
end

local function load()
  local t, problem = load_with()
  if t and call('LLEN', M) ~= t.tail - t.base then
    return nil, redis.error_reply('AGENTDAMAGED its list has lost entries')
  end
  return t, problem
end

local function new_thread()
  return {
    last = 0, base = 0, tail = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, first_us = '',
    last_us = '', ttl = '', refresh = 'w', by_hand = '0', known = '', recent = '', open = '',
    pins = '', saved = {recent = '', open = '', pins = ''},
  }
end

-- Whether the list alone tells all that a read of the thread's end shows. Redis before 7 walks to the end of a
-- long list entry by entry, which a script can spare it.
local function is_plain(t)
  local length = t.tail - t.base
  return t.pins == '' and t.refresh ~= 'r' and t.messages == length
    and (redis.REDIS_VERSION_NUM ~= nil or length < 1000)
end

-- The last entry says where it stands, behind its flags, if the thread is plain.
local function mark_end(t)
  local entry = t.tail > t.base and call('LINDEX', M, -1)
  if entry then
    local flags, place, rest = string.match(entry, '^(%d)(%d*)(.*)$')
    local now = is_plain(t) and int(t.tail) or ''
    if place ~= now then
      call('LSET', M, -1, flags .. now .. rest)
    end
  end
end

-- Write the head, and `fields`, which holds further fields and values in turn.
local function save(t, fields)
  fields = fields or {}
  fields[#fields + 1] = 'head'
  fields[#fields + 1] = table.concat({
    '1', t.last, t.base, t.tail, t.messages, t.pinned, t.bytes, t.tokens, t.first_us, t.last_us, t.ttl,
    t.refresh, t.by_hand, t.known,
  }, ',')
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
  in_parts('HSET', H, fields, 1000)
  if #gone > 0 then
    call('HDEL', H, unpack(gone))
  end
  mark_end(t)
end

-- Where a position is in the list, counted from the nearer end: servers walk there from that end.
local function index(t, position)
  if position - t.base > t.tail - position then
    return int(position - t.tail - 1)
  end
  return int(position - t.base - 1)
end

-- The entries of a range of positions. Redis before 7 walks to any range from the front of the list.
local function range(t, from, to)
  if from > to then
    return {}
  elseif redis.REDIS_VERSION_NUM or from - t.base < 1000 or t.tail - from > 300 then
    return call('LRANGE', M, int(from - t.base - 1), int(to - t.base - 1))
  end
  local entries = {}
  for position = from, to do
    entries[#entries + 1] = call('LINDEX', M, index(t, position))
  end
  return entries
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
