-- Included. Writes the thread with further `fields` and values. Its keys expire in the same millisecond, or never; they do so
-- already if `is_timed`. Its shard keeps its id an eighth of the time longer, so that few renewals write there,
-- forgets a few expired threads in passing, and expires itself.
local extends = expires and expires > listed_until
if extends then
  listed_until = expires + math.floor((expires - now_ms()) / 8)
end
fields[#fields + 1], fields[#fields + 2] = 'state', string.format(
  '4,%s,%d,%d,%d,%d,%d,%d,%s,%s,%s,%s,%s,%s,%d', version, last, messages, pinned, total_bytes, total_tokens,
  request_count, first_us, last_us, ttl, refresh, explicit, expires and string.format('%d', expires)
  or '', listed_until
)
for first = 1, #fields, 1000 do
  call('HSET', META, unpack(fields, first, math.min(first + 999, #fields)))
end
call('ZADD', RECENT, string.match(version, '^%d+'), thread_id)
if is_new then call('ZADD', INDEX, 0, thread_id) end
if expires and not is_timed then
  for n = 1, pinned > 0 and 3 or 2 do call('PEXPIREAT', KEYS[n], expires) end
elseif is_new or listed_until > 0 and not is_timed then
  for n = 1, 5 do call('PERSIST', KEYS[n]) end
  call('ZREM', EXPIRY, thread_id)
end
if extends then
  local now = now_ms()
  call('ZADD', EXPIRY, listed_until, thread_id)
  local expired = call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 4)
  for n = 4, #expired > 0 and 6 or 0 do call('ZREM', KEYS[n], unpack(expired)) end
  local first = call('ZCARD', EXPIRY) >= call('ZCARD', INDEX) and 4 or 6
  for n = first, call('PTTL', EXPIRY) < listed_until - now and 6 or 0 do
    call('PEXPIREAT', KEYS[n], listed_until)
  end
end
