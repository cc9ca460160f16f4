-- Time-to-live: one for all keys of a thread.
--
-- The bucket holds for each thread that expires a time until which it is there at least. It is later than the
-- thread's own by an eighth of what is left then, so that it is not written each time that the thread is
-- renewed; t.known repeats it.

local function now_ms()
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- When a thread with this time-to-live ends that is renewed now; nil when it is not renewed, or has none.
-- To be called before the thread is saved, and `expire` afterwards with what it returns.
local function due_in(t, left)
  if left == nil or left < 0 then
    return nil
  end
  local now = now_ms()
  local due = {at = now + left, now = now}
  if t.known == '' or due.at > tonumber(t.known) then
    due.known = due.at + math.floor(left / 8)
    t.known = int(due.known)
  end
  return due
end

-- The same after a write; one that makes a new list gives it what is left of a fixed time-to-live.
local function due_after_write(t, is_new_list)
  if t.ttl == '' then
    return nil
  elseif t.refresh ~= 'n' then
    return due_in(t, tonumber(t.ttl))
  elseif is_new_list then
    return due_in(t, call('PTTL', H))
  end
end

-- Let all keys of the thread end when it is due. In passing, a few threads of the bucket whose time is over
-- are taken out of its index; the bucket ends with its last thread.
local function expire(id, due)
  if not due then
    return
  end
  local at = int(due.at)
  call('PEXPIREAT', H, at)
  call('PEXPIREAT', M, at)
  if not due.known then
    return
  end
  local known = int(due.known)
  call('ZADD', X, known, id)
  local over = call('ZRANGEBYSCORE', X, '-inf', int(due.now), 'LIMIT', 0, 4)
  if #over > 0 then
    call('ZREM', X, unpack(over))
    call('ZREM', I, unpack(over))
  end
  if call('PTTL', X) < due.known - due.now then
    call('PEXPIREAT', X, known)
    if call('ZCARD', X) >= call('ZCARD', I) then
      call('PEXPIREAT', I, known)
    end
  end
end

local function never_expire(t, id)
  t.known = ''
  call('PERSIST', H)
  call('PERSIST', M)
  call('ZREM', X, id)
  call('PERSIST', I)
end
