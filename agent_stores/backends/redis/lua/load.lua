-- Read a thread without rows: replies nil, or its meta hash and its remaining milliseconds.
local layout = call('HGET', META, 'layout')
return find_problem(layout) or layout and {call('HGETALL', META), call('PTTL', META)} or false
