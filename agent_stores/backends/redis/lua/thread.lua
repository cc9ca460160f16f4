-- Included. The thread of the fields `found`, state and requests, of a meta hash; a new one where it `is_new`. Ends the
-- script where they or the other keys show that it must not be used; the list's length only without `is_checked`.
-- Straight code and local variables: a function takes the server longer to make than to call.
local is_new, problem = not found[1], nil
local version, last, messages, pinned, total_bytes, total_tokens, request_count, first_us, last_us, ttl, refresh,
  explicit, expires, listed_until = string.match(found[1] or '4,,0,0,0,0,0,0,,,,write,,,0',
  '^4,([^,]*),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),([^,]*),([^,]*),([^,]*),(%a+),(%d?),(%d*),(%d+)$')
local requests = found[2] or ','
last, messages, pinned = tonumber(last), tonumber(messages), tonumber(pinned)
expires, listed_until = tonumber(expires), tonumber(listed_until)
if is_new and call('EXISTS', MESSAGES, PINNED) > 0 or not (is_new or version and found[2]) then
  local layout = string.match(found[1] or '4', '^[^,]*')
  problem = layout ~= '4' and 'AGENTVERSION ' .. layout or 'AGENTDAMAGED its meta hash is missing or incomplete'
elseif not is_checked and call('LLEN', MESSAGES) ~= messages - pinned then
  problem = 'AGENTDAMAGED its list of messages is missing or incomplete'
elseif pinned > 0 and call('HLEN', PINNED) ~= pinned then
  problem = 'AGENTDAMAGED its hash of pinned messages is missing or incomplete'
end
if problem then return redis.error_reply(problem) end
