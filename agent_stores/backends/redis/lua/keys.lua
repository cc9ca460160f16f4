-- Included first. docs/redis.md describes the keys.
local META, MESSAGES, PINNED, INDEX, RECENT, EXPIRY = unpack(KEYS)
local call = redis.call

-- Milliseconds since 1970, by the server's clock.
local function now_ms()
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
