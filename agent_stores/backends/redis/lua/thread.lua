-- What every script begins with. docs/redis.md describes the keys and the fields.
local META, MESSAGES, PINNED, INDEX, RECENT, EXPIRY = unpack(KEYS)
local call = redis.call

-- Why the thread must not be used; nil when it can be, or when there is none.
local function find_problem(state)
  local layout = state and string.match(state, '^[^,]*')
  if layout then
    return layout ~= '3' and redis.error_reply('AGENTVERSION ' .. layout) or nil
  elseif call('EXISTS', MESSAGES) == 1 or PINNED and call('EXISTS', PINNED) == 1 then
    return redis.error_reply('AGENTDAMAGED its meta hash is missing')
  end
end

-- The thread of the fields `state` and `requests`, as a table; nil when there is none; then perhaps an error. With
-- `is_checked`, its list and its pinned rows are known to be complete.
local function load_thread(state, requests, is_checked)
  local problem, t, damaged = find_problem(state), {requests = requests}, nil
  if problem or not state then
    return nil, problem
  end
  t.version, t.last, t.messages, t.pinned, t.bytes, t.tokens, t.request_count, t.first_us, t.last_us, t.ttl, t.refresh,
    t.explicit, t.expires, t.listed_until = string.match(state,
    '^3,([^,]+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),([^,]*),([^,]*),(%d*),(%a+),(%d?),(%d*),(%d+)$')
  t.last, t.messages, t.pinned = tonumber(t.last), tonumber(t.messages), tonumber(t.pinned)
  t.expires, t.listed_until = tonumber(t.expires), tonumber(t.listed_until)
  if not t.version or not requests then
    damaged = 'meta hash'
  elseif not is_checked and call('LLEN', MESSAGES) ~= t.messages - t.pinned then
    damaged = 'list of messages'
  elseif t.pinned > 0 and call('HLEN', PINNED) ~= t.pinned then
    damaged = 'hash of pinned messages'
  end
  return t, damaged and redis.error_reply('AGENTDAMAGED its ' .. damaged .. ' is missing or incomplete')
end

-- Whether the list alone shows what a read of the thread's end needs.
local function is_plain(t)
  return t.pinned == 0 and t.refresh ~= 'read'
end
