-- Shared by the scripts that change a thread or its time-to-live.
local NOW = call('TIME')
local NOW_US, NOW_MS = NOW[1] * 1000000 + NOW[2], NOW[1] * 1000 + math.floor(NOW[2] / 1000)

local function new_thread()
  return {
    version = NOW_US, last = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, requests = ',', request_count = 0,
    first_us = '', last_us = '', ttl = '', refresh = 'write', explicit = '', listed_until = 0,
  }
end

-- In parts: a Lua call takes at most some thousands of arguments.
local function in_parts(command, key, arguments)
  for first = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- The last entry of a plain thread's list has the flag `e`.
local function mark_end(t)
  local position, mark, rest = string.match(call('LINDEX', MESSAGES, -1) or '', '^(%d+,)(e?)(.*)$')
  if position and (mark == 'e') ~= is_plain(t) then
    call('LSET', MESSAGES, -1, position .. (is_plain(t) and 'e' or '') .. rest)
  end
end

-- Write the thread and further fields. All its keys expire in the same millisecond. Its shard keeps its id an eighth
-- of the time longer, so that few renewals write there, forgets a few expired threads in passing, and expires itself.
local function save(t, thread_id, is_new, ...)
  local extends = t.expires and t.expires > t.listed_until
  t.listed_until = extends and t.expires + math.floor((t.expires - NOW_MS) / 8) or t.listed_until
  call('HSET', META, 'state', string.format(
    '2,%.0f,%.0f,%d,%d,%.0f,%.0f,%d,%.0f,%s,%s,%s,%s,%s,%s,%.0f', t.version, t.last, t.messages, t.pinned, t.bytes,
    t.tokens, t.request_count, t.updated_us, t.first_us, t.last_us, t.ttl, t.refresh, t.explicit,
    t.expires and string.format('%.0f', t.expires) or '', t.listed_until
  ), ...)
  call('ZADD', RECENT, t.updated_us, thread_id)
  if is_new then call('ZADD', INDEX, 0, thread_id) end
  for n = 1, t.expires and (t.pinned > 0 and 4 or 3) or 0 do
    call('PEXPIREAT', KEYS[n], t.expires)
  end
  if not t.expires and (is_new or t.listed_until > 0) then
    for n = 1, 6 do
      call('PERSIST', KEYS[n])
    end
    call('ZREM', EXPIRY, thread_id)
  elseif extends then
    call('ZADD', EXPIRY, t.listed_until, thread_id)
    local expired = call('ZRANGEBYSCORE', EXPIRY, '-inf', NOW_MS, 'LIMIT', 0, 4)
    for n = 5, #expired > 0 and 7 or 0 do
      call('ZREM', KEYS[n], unpack(expired))
    end
    for n = call('ZCARD', EXPIRY) >= call('ZCARD', INDEX) and 5 or 7, call('PTTL', EXPIRY) < t.listed_until - NOW_MS and 7 or 0 do
      call('PEXPIREAT', KEYS[n], t.listed_until)
    end
  end
end
