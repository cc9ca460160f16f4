-- What every script begins with. docs/redis.md describes the keys and the fields.
local META, MESSAGES, IDS, PINNED, INDEX, RECENT, EXPIRY = unpack(KEYS)
local call = redis.call
local NUMBERS = {'last', 'messages', 'pinned', 'request_count', 'expires', 'listed_until'}

-- Why the thread must not be used; nil when it can be, or when there is none.
local function find_problem(state)
  local layout = state and string.match(state, '^[^,]*')
  if layout then
    return layout ~= '2' and redis.error_reply('AGENTVERSION ' .. layout) or nil
  elseif call('EXISTS', MESSAGES, IDS) > 0 or PINNED and call('EXISTS', PINNED) == 1 then
    return redis.error_reply('AGENTDAMAGED its meta hash is missing')
  elseif redis.pcall('EXISTS', (string.gsub(META, '}:meta:', '}:h:', 1))) == 1 then
    return redis.error_reply('AGENTVERSION 1')
  end
end

-- The thread as a table; nil when there is none; then perhaps an error.
local function load_thread()
  local found = call('HMGET', META, 'state', 'requests')
  local problem, t, damaged = find_problem(found[1]), {requests = found[2]}, nil
  if problem or not found[1] then
    return nil, problem
  end
  t.version, t.last, t.messages, t.pinned, t.bytes, t.tokens, t.request_count, t.updated_us, t.first_us, t.last_us,
    t.ttl, t.refresh, t.explicit, t.expires, t.listed_until = string.match(found[1],
    '^2,(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),([^,]*),([^,]*),(%d*),(%a+),(%d?),(%d*),(%d+)$')
  for _, name in ipairs(NUMBERS) do
    t[name] = tonumber(t[name])
  end
  if not t.version or not t.requests then
    damaged = 'meta hash'
  elseif call('LLEN', MESSAGES) ~= t.messages - t.pinned then
    damaged = 'list of messages'
  elseif call('HLEN', IDS) ~= t.messages then
    damaged = 'hash of message ids'
  elseif t.pinned > 0 and call('HLEN', PINNED) ~= t.pinned then
    damaged = 'hash of pinned messages'
  end
  return t, damaged and redis.error_reply('AGENTDAMAGED its ' .. damaged .. ' is missing or incomplete')
end

-- Whether the list alone shows what a read of the thread's end needs.
local function is_plain(t)
  return t.pinned == 0 and t.refresh ~= 'read'
end
