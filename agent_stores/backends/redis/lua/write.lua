-- Shared by the scripts that change a thread or its time-to-live.

local NOW = call('TIME')
local NOW_US = NOW[1] * 1000000 + NOW[2]
local NOW_MS = math.floor(NOW_US / 1000)

-- Run a command in parts: a Lua call takes at most some thousands of arguments.
local function in_parts(command, key, arguments)
  for first = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- All keys of a thread expire in the same millisecond. In passing, a few expired threads are removed from the
-- keys of the shard, which expire an eighth after their last thread, so that few renewals write to them.
local function set_expiry(t, thread_id)
  for n = 1, t.pinned > 0 and 4 or 3 do
    call('PEXPIREAT', KEYS[n], t.expires)
  end
  call('ZADD', EXPIRY, t.expires, thread_id)
  local expired, left = call('ZRANGEBYSCORE', EXPIRY, '-inf', NOW_MS, 'LIMIT', 0, 4), t.expires - NOW_MS
  for n = 5, #expired > 0 and 7 or 0 do
    call('ZREM', KEYS[n], unpack(expired))
  end
  if call('PTTL', EXPIRY) < left then
    for n = call('ZCARD', EXPIRY) >= call('ZCARD', INDEX) and 5 or 7, 7 do
      call('PEXPIREAT', KEYS[n], t.expires + math.floor(left / 8))
    end
  end
end

-- Write the thread and further fields to its meta hash, and to the keys of its shard.
local function save(t, thread_id, is_new, further)
  local fields = {'updated_us', NOW_US, unpack(further)}
  for _, name in ipairs(FIELDS) do
    fields[#fields + 1], fields[#fields + 2] = name, t[name]
  end
  call('HSET', META, unpack(fields))
  call('ZADD', RECENT, NOW_US, thread_id)
  if is_new then
    call('ZADD', INDEX, 0, thread_id)
  end
  if t.expires ~= '' then
    set_expiry(t, thread_id)
  elseif is_new or call('PTTL', META) >= 0 then
    for n = 1, 6 do
      call('PERSIST', KEYS[n])
    end
    call('ZREM', EXPIRY, thread_id)
  end
  local last = call('LINDEX', MESSAGES, -1)
  local position, mark, rest = string.match(last or '', '^(%d+),(e?)(.*)$')
  if position and mark ~= (is_plain(t) and 'e' or '') then  -- the flag `e` of a plain thread's last entry
    call('LSET', MESSAGES, -1, position .. ',' .. (is_plain(t) and 'e' or '') .. rest)
  end
end
