-- thread id. Replies how many messages there were.

local t, problem = load()
if problem then
  return problem
elseif not t or t.messages == 0 then
  return 0
end
local messages, left = t.messages, tonumber(t.ttl)
if t.refresh == 'n' and left then
  left = call('PTTL', H)
end
call('UNLINK', H, M)
t.base, t.tail, t.messages, t.pinned, t.bytes, t.tokens = t.last, t.last, 0, 0, 0, 0
t.recent, t.open, t.pins = '', '', ''
t.saved = {recent = '', open = '', pins = ''}
local due = due_in(t, left)
save(t)
expire(ARGV[1], due)
return messages
