-- Included. The flags of the last entry of the list are 4 more if the list alone shows what a read of the thread's end
-- needs.
local is_plain, entry = pinned == 0 and refresh ~= 'read', call('LINDEX', MESSAGES, -1)
local flag = entry and string.byte(entry) - 48
if flag and (flag >= 4) ~= is_plain then
  call('LSET', MESSAGES, -1, flag % 4 + (is_plain and 4 or 0) .. string.sub(entry, 2))
end
