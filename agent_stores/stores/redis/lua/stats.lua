-- Replies nil, or the head's line, the milliseconds that it has left (-1 for ever), and the server's time in
-- seconds and microseconds.

local head = redis.call('HGET', KEYS[1], 'head')
if not head then
  return false
end
local now = redis.call('TIME')
return {head, redis.call('PTTL', KEYS[1]), now[1], now[2]}
