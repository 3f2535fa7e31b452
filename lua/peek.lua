-- Says of a batch of items what check.lua would, and writes nothing.
--
-- KEYS, ARGV and reply are those of check.lua, each item being one check; the first two of ARGV are not used, nor what
-- is said of how long the logs live and of whether the batch has run before. Nothing is forgotten, so where check.lua
-- knows better in its next run this does not.
-- Cost   for each window 2 calls, 1 to 3 more when entries have expired or are heavier than 1, and 2 or more if a
--        window of the item denies. What is read one by one is bounded (decide.lua).

local at = 0
for arg = 3, last_arg, 2 do
  local question = read_question(ARGV[arg + 1])
  local is_full = question.is_full
  for _ = 1, question.is_of_logs and 0 or ARGV[arg] do
    local admitted, fault = items.measure_item(question, at)
    if admitted then
      items.reply_item(question, at, admitted, false, false)
    else
      items.refuse_item(question, at, fault)
    end
    at = at + #question
  end
  for _ = 1, question.is_of_logs and ARGV[arg] or 0 do
    local admitted, fault = measure(question, at)
    for i = 1, #question do
      local place, window = at + i, question[i]
      reply[place + 1] = fault or window.used
      if admitted == 0 or is_full and admitted then
        local is_plain = window.oldest == 0
        local kept, has_t = is_plain and 0 or window.gone + window.left, not is_plain and window.excess
        seldom = seldom or define_seldom()
        if admitted == 0 then
          seldom.append_denial(place, window, question.cost, window.used, kept, has_t, false)
        end
        if is_full then
          seldom.append_next(place, window, window.used, kept, has_t)
        end
      end
    end
    at = at + #question
  end
end

return reply
