-- Read a thread without rows: replies nil, or four fields of its meta hash and its remaining milliseconds.
local fields = call('HMGET', META, 'state', 'requests', 'metadata', 'revision')
return find_problem(fields[1]) or fields[1] and {fields, call('PTTL', META)} or false
