-- What every script begins with. docs/redis.md describes the keys.

local META, MESSAGES, IDS, PINNED, INDEX, RECENT, EXPIRY = unpack(KEYS)
local call = redis.call
local FIELDS = {
  'layout', 'version', 'last_position', 'messages', 'pinned', 'bytes', 'tokens', 'ttl', 'ttl_refresh',
  'ttl_explicit', 'expires', 'requests', 'request_count', 'commit',
}

-- Why the thread must not be used; nil when it can be, or when there is none.
local function find_problem(layout)
  if layout then
    return layout ~= '2' and redis.error_reply('AGENTVERSION ' .. layout) or nil
  elseif call('EXISTS', MESSAGES, IDS) > 0 or PINNED and call('EXISTS', PINNED) == 1 then
    return redis.error_reply('AGENTDAMAGED its meta hash is missing')
  elseif redis.pcall('EXISTS', (string.gsub(META, '}:meta:', '}:h:', 1))) == 1 then
    return redis.error_reply('AGENTVERSION 1')
  end
end

-- The thread's fields; nil when there is no thread, then perhaps with an error.
local function load_thread()
  local found, t, damaged = call('HMGET', META, unpack(FIELDS)), {}, nil
  local problem = find_problem(found[1])
  if problem or not found[1] then
    return nil, problem
  end
  for n, name in ipairs(FIELDS) do
    t[name] = tonumber(found[n] or nil) or found[n] or ''
  end
  if call('LLEN', MESSAGES) ~= t.messages - t.pinned then
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
  return t.pinned == 0 and t.ttl_refresh ~= 'read'
end
