-- ttl in milliseconds or '', how it is renewed, thread id. Replies 1, or 0 without a thread.

local t, problem = load()
if problem then
  return problem
elseif not t then
  return 0
end
t.ttl, t.refresh, t.by_hand, t.known = ARGV[1], ARGV[2], '1', ''
if t.ttl == '' then
  never_expire(t, ARGV[3])
end
local due = due_in(t, tonumber(t.ttl))
save(t)
expire(ARGV[3], due)
return 1
