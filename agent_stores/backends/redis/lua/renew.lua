-- Included. Renews the time-to-live, unless that moves its end by less than a second and a thousandth.
local full = math.max(1, math.floor(ttl * 1000 + 0.5))
renewed = not expires or math.abs(full - call('PTTL', META)) >= math.min(1000, ttl)
expires = renewed and now_ms() + full or expires
