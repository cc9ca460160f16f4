-- Read the newest rows: see `agent_stores.capabilities.LatestReader`. Arguments: limit or '', thread id. Replies
-- nil, or the entries of the list, those of the pinned rows, and 1 when the next read may be one LRANGE.
local found = call('HMGET', META, 'state', 'requests')
local t, problem = load_thread(found[1], found[2])
if problem or not t then
  return problem or false
end
local rows = ARGV[1] == '0' and {} or call('LRANGE', MESSAGES, ARGV[1] == '' and 0 or -ARGV[1], -1)
if t.ttl ~= '' and t.refresh == 'read' and renew(t) then
  save(t, ARGV[2], false, {})
end
return {rows, t.pinned > 0 and call('HVALS', PINNED) or {}, is_plain(t) and 1 or 0}
