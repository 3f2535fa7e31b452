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
        local first, has_t = 0, false
        if window.oldest ~= 0 then
          first, has_t = window.gone + (window.excess and 1 or 0), window.excess
        end
        append_denial(place, window, question.cost, window.used, first, has_t)
      end
    end
    at = at + #question
  end
end

return reply
