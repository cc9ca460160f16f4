-- The common append comes first: making the functions of the general one takes the server longer than the work.
-- It adds messages that are neither pinned nor linked to a thread of such messages that no call waits in, none of
-- which is there already, and whose time-to-live stays as it is. It writes nothing before it knows that it can
-- do all of it; replies the last position, or nothing.

local function append_plain()
  local H, M, call = KEYS[1], KEYS[2], redis.call
  local batch, expected, limit, ttl, refresh = unpack(ARGV, 1, 5)
  local count, names, created, bytes, tokens = #ARGV - 6, {}, nil, 0, 0
  if count > 100 then
    return nil
  end
  for n = 1, count do
    local entry = ARGV[n + 6]
    local at, own, name, body_at = string.match(entry, '^1,,,,([^,]*),(%d+),([^\n]*)\n()')
    if not at or names[name] then
      return nil
    end
    names[n], names[name] = '#' .. name, true
    created, tokens, bytes = at, tokens + own, bytes + #entry - body_at + 1
  end
  local found = call('HMGET', H, 'head', 'recent', 'open', 'pins', unpack(names, 1, count))
  local recent = found[2]
  if not found[1] or not recent or found[3] or found[4] or string.find(recent, batch, 1, true) then
    return nil
  end
  for n = 5, count + 4 do
    if found[n] then
      return nil
    end
  end
  local last, base, tail, messages, size, sum, first_us, own_ttl, own_refresh, by_hand, known = string.match(
    found[1], '^1,(%d+),(%d+),(%d+),(%d+),0,(%d+),(%d+),(%-?%d+),%-?%d*,(%d*),(%a),(%d),(%d*)$'
  )
  if not last or last ~= tail or base == tail or (expected ~= '' and expected ~= last)
    or (refresh ~= '' and by_hand == '0' and (ttl ~= own_ttl or refresh ~= own_refresh)) then
    return nil
  end
  local due = nil
  if own_ttl ~= '' and own_refresh ~= 'n' then
    local now = call('TIME')
    due = now[1] * 1000 + math.floor(now[2] / 1000) + own_ttl
    if known == '' or due > tonumber(known) then
      return nil
    end
  end
  last, base = last + count, tonumber(base)
  local is_plain = own_refresh ~= 'r' and tonumber(messages) == tail - base
  messages, size, sum = messages + count, size + bytes, sum + tokens
  local excess, gone = limit == '' and 0 or messages - limit, {}
  if excess > 0 then
    local dropped = excess <= 100 and call('LRANGE', M, 0, excess)
    if not dropped or #dropped <= excess or string.byte(dropped[excess + 1]) ~= 49 then
      return nil  -- what comes next must not be cut off, or is new itself
    end
    for n = 1, excess do
      local entry = dropped[n]
      local own, name, body_at = string.match(entry, '^%d+,%d*,[^,]*,[^,]*,[^,]*,(%d+),([^\n]*)\n()')
      if not own then
        return nil
      end
      gone[n], sum, size = '#' .. name, sum - own, size - #entry + body_at - 1
    end
    base, messages = base + excess, messages - excess
  end

  if is_plain and (redis.REDIS_VERSION_NUM or last - base < 1000) then
    ARGV[#ARGV] = string.format('1%d', last) .. string.sub(ARGV[#ARGV], 2)
  end
  if call('RPUSHX', M, unpack(ARGV, 7)) == 0 then
    return redis.error_reply('AGENTDAMAGED its list is gone')
  end
  if excess > 0 then
    call('LTRIM', M, excess, -1)
    call('HDEL', H, unpack(gone))
  end
  local fields = {
    'head', string.format(
      '1,%d,%d,%d,%d,0,%d,%d,%s,%s,%s,%s,%s,%s', last, base, last, messages, size, sum, first_us, created,
      own_ttl, own_refresh, by_hand, known
    ),
    'recent', string.sub(batch .. recent, 1, 288),
  }
  for n = 1, count do
    fields[2 * n + 3], fields[2 * n + 4] = names[n], string.format('%d', last - count + n)
  end
  call('HSET', H, unpack(fields))
  if due then
    due = string.format('%d', due)
    call('PEXPIREAT', H, due)
    call('PEXPIREAT', M, due)
  end
  return last
end

local reply = append_plain()
if reply then
  return reply
end
