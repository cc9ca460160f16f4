-- Read a thread without rows: replies nil, or its meta hash and its remaining milliseconds.
local state = call('HGET', META, 'state')
return find_problem(state) or state and {call('HGETALL', META), call('PTTL', META)} or false
