-- Decides a batch of items and counts what it admits.
--
-- KEYS   [1] the registry; then the logs, in the order of the items and, in each, of its windows
-- ARGV   [1] id of the batch, with neither ':' nor '.'
--        [2] unix time in us
--        then for each run of items that ask the same: how many items, and what each asks, packed little-endian: 1 if
--        an earlier run saw that its logs, if they are still there, live as long as any entry counts that is made until
--        [2], else 0, of 8 bits; number of checks and cost of one, and for each window its limit, all of 32 bits, and
--        its length in ms, a double. That is read in a tenth of the time that text takes
-- Reply  integers: now_us; for each log
--          used         weight in the window before the item; -1 for all windows of an item if one of its keys holds
--                       no sorted set, in which case nothing of the item is written
--        then, for each log of each item of which a check was denied
--          place        of the log among the logs, from 0
--          fits_in_us   if this window denies one of the checks: until so many of the oldest entries have expired,
--                       those just made included, that one such check fits; 0 if those have expired and only await
--                       being forgotten; too short if more than MAX_WALKED entries are needed. Else 0
--          empty_in_us  until the newest entry expires, those just made included; 0 if there is none
--          covered      with fits_in_us: weight that will have expired by then, or somewhat less. Whatever fits once
--                       this much has expired, and does not fit before the check does, fits at the same time. Else 0
--        Where all were admitted the newest entry is the one just made. Should the clock have stepped back it may not
--        be; a call for each check, to learn that, is not made.
-- Cost   for each window 3 calls if all are admitted and 4 if all are denied, 5 if both occur; 2 more if entries have
--        expired, 1 more if t is there, 4 more if both; if something is admitted, 1 more unless the logs are known to
--        last, 1 more again to extend the TTL, and then 2 or 3 for the registry, once a run and length. A denied check
--        that needs more than the oldest entry to expire costs up to 9 more if t is there.
--
-- The item's number n from 0, in base 62, is part of its entry's id: `<batch id>` for the first and `<batch id>.<n>`
-- for the others. So a batch that runs again because its answer was lost writes the same members, and they count once.
-- It is decided anew, though: an item of which another number is admitted than before is counted twice.

local batch_id, now_score = ARGV[1], score_of(now_us)

-- A number in base 62. Lua would print it in base 10 at three times the cost.
local sub, DIGITS = string.sub, '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
local function base62(number)
  local digit = number % 62
  local last = sub(DIGITS, digit + 1, digit + 1)
  return number < 62 and last or base62((number - digit) / 62) .. last
end

-- The member that a batch's item of this number makes, if so much of it is admitted.
local function member_of(number, weight)
  local id = number == 0 and batch_id or batch_id .. '.' .. base62(number)
  return weight == 1 and id or id .. ':' .. weight
end

-- Forgets what has expired of a log. Returns what t says then, or false if there is none.
local function prune(key, window)
  local gone, excess = window.gone, window.excess
  if gone > 0 then
    local first = excess and 1 or 0
    call('ZREMRANGEBYRANK', key, -first - gone, -first - 1)
    if excess == 0 then
      call('ZREM', key, 't')
      return false
    elseif excess then
      call('ZADD', key, excess, 't')
    end
  end
  return excess
end

local number, at = 0, 1
for arg = 3, #ARGV, 2 do
  local question = read_question(ARGV[arg + 1])
  local checks, cost, lasts = question.checks, question.cost, question.lasts
  for _ = 1, ARGV[arg] do
    local admitted = measure(question, at)
    local weight = (admitted or 0) * cost
    local member = weight > 0 and member_of(number, weight)
    for i = 1, #question do
      local place, window = at + i, question[i]
      local key, used = keys[place], window.used
      if admitted then
        reply[place] = used
        local excess, added = window.oldest ~= 0 and prune(key, window), 0
        if member then
          added = add_entry(key, excess, weight, now_score, member)
          -- A log that was empty begins anew, with no end.
          if not lasts or used == 0 then
            keep_alive(key, window)
          end
        end
        if admitted < checks then
          append_denial(place, window, cost, used + added, 0, excess or added > 1)
        end
      else
        reply[place] = -1
      end
    end
    number, at = number + 1, at + #question
  end
end

return reply
