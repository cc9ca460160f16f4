-- Shared by the scripts that change a thread or its time-to-live.
local NOW = call('TIME')
local NOW_MS = NOW[1] * 1000 + math.floor(NOW[2] / 1000)

local function new_thread()
  return {
    last = 0, messages = 0, pinned = 0, bytes = 0, tokens = 0, requests = ',', request_count = 0, first_us = '',
    last_us = '', ttl = '', refresh = 'write', explicit = '', listed_until = 0,
  }
end

-- In parts: a Lua call takes at most some thousands of arguments.
local function in_parts(command, key, arguments)
  for first = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- Renew a time-to-live, unless that moves its end by less than a second and a thousandth; returns whether it did.
local function renew(t)
  local expires = NOW_MS + t.ttl
  local moves = not t.expires or math.abs(expires - t.expires) >= math.min(1000, t.ttl / 1000)
  t.expires = moves and expires or t.expires
  return moves
end

-- The flags of the last entry of a plain thread's list are 4 more.
local function mark_end(t)
  local entry = call('LINDEX', MESSAGES, -1)
  local flags = entry and string.byte(entry) - 48
  if flags and (flags >= 4) ~= is_plain(t) then
    call('LSET', MESSAGES, -1, flags % 4 + (is_plain(t) and 4 or 0) .. string.sub(entry, 2))
  end
end

-- Write the thread with further fields and values. Its keys expire in the same millisecond, which they know already if
-- `is_timed`. Its shard keeps its id an eighth of the time longer, so that few renewals write there, forgets a few
-- expired threads in passing, and expires itself.
local function save(t, thread_id, is_new, fields)
  local extends = t.expires and t.expires > t.listed_until
  t.listed_until = extends and t.expires + math.floor((t.expires - NOW_MS) / 8) or t.listed_until
  fields[#fields + 1], fields[#fields + 2] = 'state', string.format(
    '3,%s,%d,%d,%d,%d,%d,%d,%s,%s,%s,%s,%s,%s,%d', t.version, t.last, t.messages, t.pinned, t.bytes, t.tokens,
    t.request_count, t.first_us, t.last_us, t.ttl, t.refresh, t.explicit,
    t.expires and string.format('%d', t.expires) or '', t.listed_until
  )
  in_parts('HSET', META, fields)
  call('ZADD', RECENT, string.match(t.version, '^%d+'), thread_id)
  if is_new then call('ZADD', INDEX, 0, thread_id) end
  for n = 1, t.expires and not t.is_timed and (t.pinned > 0 and 3 or 2) or 0 do call('PEXPIREAT', KEYS[n], t.expires) end
  if not t.expires and (is_new or t.listed_until > 0) then
    for n = 1, 5 do call('PERSIST', KEYS[n]) end
    call('ZREM', EXPIRY, thread_id)
  elseif extends then
    call('ZADD', EXPIRY, t.listed_until, thread_id)
    local expired = call('ZRANGEBYSCORE', EXPIRY, '-inf', NOW_MS, 'LIMIT', 0, 4)
    for n = 4, #expired > 0 and 6 or 0 do call('ZREM', KEYS[n], unpack(expired)) end
    for n = call('ZCARD', EXPIRY) >= call('ZCARD', INDEX) and 4 or 6, call('PTTL', EXPIRY) < t.listed_until - NOW_MS and 6 or 0 do
      call('PEXPIREAT', KEYS[n], t.listed_until)
    end
  end
end
