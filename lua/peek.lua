-- Says of a batch of items what check.lua would, and writes nothing.
--
-- KEYS, ARGV and reply are those of check.lua, each item being one check; the id of the batch is not used.
-- Cost   for each window 1 call, 1 more when entries have expired, and 1 or more if a window of the item denies.

local at = 2
for number = 2, #ARGV do
  local item = read_item(ARGV[number])
  local admitted = measure(item, at)
  if admitted then
    for i = 1, #item do
      append_answer(KEYS[at + i - 1], item, i, admitted, used[i], FIRST + gone[i])
    end
  else
    append_wrong_type(item)
  end
  at = at + #item
end

return reply
