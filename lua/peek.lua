-- Says of a batch of items what check.lua would, and writes nothing.
--
-- KEYS, ARGV and reply are those of check.lua, each item being one check; the first two of ARGV are not used, nor what
-- is said of how long the logs live.
-- Cost   for each window 2 calls, 1 to 3 more when entries have expired or are heavier than 1, and 1 or more if a
--        window of the item denies.

local at = 1
for arg = 3, #ARGV, 2 do
  local question = read_question(ARGV[arg + 1])
  for _ = 1, ARGV[arg] do
    local admitted = measure(question, at)
    for i = 1, #question do
      local place, window = at + i, question[i]
      reply[place] = admitted and window.used or -1
      if admitted == 0 then
        local is_plain = window.oldest == 0
        local gone, has_t = is_plain and 0 or window.gone, not is_plain and window.excess
        append_denial(place, window, question.cost, window.used, gone, has_t)
      end
    end
    at = at + #question
  end
end

return reply
