-- Read the newest rows: see `agent_stores.capabilities.LatestReader`. Arguments: limit or '', thread id. Replies
-- nil, or the entries of the list, those of the pinned rows, and 1 when the next read may be one LRANGE.
-- include keys
local thread_id, fields, renewed, is_checked, is_timed = ARGV[2], {}, false, false, false
local found = call('HMGET', META, 'state', 'requests')
-- include thread
if is_new then return false end
local rows = ARGV[1] == '0' and {} or call('LRANGE', MESSAGES, ARGV[1] == '' and 0 or -ARGV[1], -1)
if ttl ~= '' and refresh == 'read' then
  -- include renew
end
if renewed then
  -- include save
end
return {rows, pinned > 0 and call('HVALS', PINNED) or {}, pinned == 0 and refresh ~= 'read' and 1 or 0}
