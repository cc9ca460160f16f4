-- Read a thread without rows: replies nil, or three fields of its meta hash and its remaining milliseconds.
local fields = redis.call('HMGET', KEYS[1], 'state', 'requests', 'metadata')
if fields[1] then
  return {fields, redis.call('PTTL', KEYS[1])}
elseif redis.call('EXISTS', KEYS[2]) > 0 then
  return redis.error_reply('AGENTDAMAGED its meta hash is missing')
end
return false
