-- The list of messages is ordered by position, with gaps.

-- An index from the nearer end of the list: servers walk to it from there.
local function nearer(index, length)
  return index < length / 2 and index or index - length
end

local function position_at(index, length)
  return tonumber(string.match(call('LINDEX', MESSAGES, nearer(index, length)), '^%d(%d+)'))
end

-- The index of the first entry at or after a position, and whether it is at that position.
local function locate(position, length)
  local last = length > 0 and position_at(length - 1, length) or 0
  if length == 0 or position > last then
    return length, false
  end
  -- Without gaps both bounds are equal.
  local low = math.max(0, length - 1 - last + position)
  local high = math.min(length - 1, math.max(0, position - position_at(0, length)))
  while low < high do
    local middle = math.floor((low + high) / 2)
    local is_before = position_at(middle, length) < position
    low, high = is_before and middle + 1 or low, is_before and high or middle
  end
  return low, position_at(low, length) == position
end
