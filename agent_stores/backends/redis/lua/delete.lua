-- Delete a thread, in any condition. Arguments: the thread id; the version that it must have, '*' for any, or ''
-- for a thread that has no keys any more, to remove it from the keys of its shard. Replies 1 when it was done.
-- include keys
local version = string.match(call('HGET', META, 'state') or '', '^[^,]*,([^,]*)') or ''
if ARGV[2] ~= '*' and ARGV[2] ~= version or ARGV[2] == '' and call('EXISTS', META, MESSAGES, PINNED) > 0 then
  return 0
end
for n = 4, 6 do call('ZREM', KEYS[n], ARGV[1]) end
return (call('UNLINK', META, MESSAGES, PINNED) > 0 or ARGV[2] == '') and 1 or 0
