-- The ids of entries. Those of a batch's items are its own, and for all but the first item the number of the item from 0,
-- in base 62: `<batch id>.<n>`. So a batch that runs again because its answer was lost finds what it made, and answers what
-- it did.

local batch_id = ARGV[1]
local sub = string.sub

-- The id of an item. Lua would print its number in base 10 at three times the cost.
local function id_of(number)
  local DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
  if number < 62 then
    return number == 0 and batch_id or batch_id .. '.' .. sub(DIGITS, number + 1, number + 1)
  end
  local digits = ''
  while number > 0 do
    local digit = number % 62
    digits, number = sub(DIGITS, digit + 1, digit + 1) .. digits, (number - digit) / 62
  end
  return batch_id .. '.' .. digits
end

