-- Included. Renews the time-to-live, unless that moves its end by less than a second and a thousandth.
local renewed_until = now_ms() + math.max(1, math.floor(ttl * 1000 + 0.5))
renewed = not expires or math.abs(renewed_until - expires) >= math.min(1000, ttl)
expires = renewed and renewed_until or expires
