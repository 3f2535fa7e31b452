-- Decides a batch of items and counts what it admits.
--
-- KEYS   the logs, in the order of the items and, in each, of its windows; or none (keys.lua)
-- ARGV   [1] id of the batch, with neither ':' nor '.'
--        [2] unix time in us
--        then for each run of items that ask the same: how many items, and what each asks, packed little-endian: of 8
--        bits, 1 if an earlier run saw that its logs, if they are still there, live as long as any entry counts that
--        is made until [2], 2 if the batch may have run before, 4 if it is to be told when more is free, 8 if a limit
--        is counted otherwise (items.lua has the rest of what such an item asks, and what is replied), and 16 if it is a
--        share; number of checks, at most 1024, and cost of one, of 32 bits each; of a share, for how many us it may be
--        used, at most an eighth of each window, a double; and for each window its limit, of 32 bits, and its length in
--        ms, a double. That is read in a tenth of the time that text takes;
--        then the logs, if they are no KEYS
-- Reply  integers: now_us; for each log
--          used         weight in the window before the item; -1 for all windows of an item if one of its keys holds
--                       no log, -2 if one is elsewhere. In both cases nothing of the item is written
--        then, for each log of each item of which a check was denied
--          place        of the log among the logs, from 0
--          fits_in_us   if this window denies one of the checks: until so many of the oldest entries have expired,
--                       those just made included, that one such check fits; too short if more entries are needed than
--                       may be read; 0 if `used` may be too much, which the next run knows better. Else 0
--          empty_in_us  until the newest entry expires, those just made included; 0 if there is none
--          covered      with fits_in_us: weight that will have expired by then, or somewhat less. Whatever fits once
--                       this much has expired, and does not fit before the check does, fits at the same time. Else 0
--        and, for each log of each item that is to be told when more is free
--          -1 - place
--          next_in_us   until so many of the oldest entries have expired, those just made included, that more is free
--                       under the limit than now; 0 if there is none
--          0, 0         so that it is as long
--        Where all were admitted the newest entry is the one just made. Should the clock have stepped back it may not
--        be; a call for each check, to learn that, is not made.
--        `used` may be too much where entries are heavier than 1 and more have expired than may be read (decide.lua),
--        while more count than half of those.
-- Cost   for each window 3 calls if all are admitted, and 4 if all are denied, 5 if both occur; 1 more if entries have
--        expired, 1 more if t is there, 4 more if both; if something is admitted, 1 more unless the logs are known to
--        last, and 1 more again to extend the TTL, which a log that begins is given unasked. A denied check that needs
--        more than the oldest entry to expire costs 1 more if t is there, and 1 for each 100 entries. For an item that
--        is admitted though one of its logs has expired as a whole, 1 call; for one that may have run before, 1 for the
--        names of its members, of which there are as many as checks. What is read and forgotten one by one is bounded
--        (decide.lua). To tell when more is free costs 1 call for each window, and more only where a limit was lowered and
--        t is there.
--
-- This is what decides any items; nearly all are decided by plain.lua, which runs it for the others (ids.lua has the names of
-- what both make).
-- An item that asks for a share has an id that ends in `~`, and is dated when the share is over: whatever is admitted by
-- it is admitted before.

local now_score = score_of(now_us)

-- Forgets what has expired of a log. Returns what t says then, or false if there is none.
local function prune(key, window)
  local gone, excess = window.gone, window.excess
  if window.over then
    -- Nothing counts: however much that is, Redis frees it apart.
    call('UNLINK', key)
    return false
  end
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

-- Decides an item of which a limit is no log's.
local function check_item(question, at, number)
  local admitted, fault = items.measure_item(question, at)
  local known = 0
  if admitted and (admitted > 0 or question.is_resent) then
    local id = question.has_log and id_of(number)
    known = question.is_resent and items.recall(question, at, id, question.first + number) or 0
    if known == 0 and admitted > 0 then
      fault = items.count_item(question, at, admitted, question.first + number, id, prune)
    end
  end
  if fault then
    items.refuse_item(question, at, fault)
  else
    items.reply_item(question, at, known > 0 and known or admitted, known == 0 and admitted > 0, true)
  end
end

-- Decides items that ask the same: so many, of which the first has this number, and whose logs follow keys[at]. The rest is
-- what plain.lua has replied so far and has read (run.lua). Returns the reply's size, and what the next item's logs follow.
local function check_items(packed, count, number, at, replied, replied_size, size, oldest, t)
  reply, reply_size, known_size, known_oldest, known_t = replied, replied_size, size, oldest, t
  local question = read_question(packed)
  local checks, cost, lasts, is_full = question.checks, question.cost, question.lasts, question.is_full
  local ahead_us = question.ahead_us
  local score = ahead_us and score_of(now_us + ahead_us) or now_score
  -- More than `used` is replied where fewer checks than these are admitted.
  local tells_below = is_full and math.huge or checks
  for _ = 1, question.is_of_logs and 0 or count do
    check_item(question, at, number)
    number, at = number + 1, at + #question
  end
  for _ = 1, question.is_of_logs and count or 0 do
    local admitted, fault = measure(question, at)
    local known, member = 0, nil
    if admitted and (admitted > 0 or question.is_resent) then
      local id = ahead_us and id_of(number) .. '~' or id_of(number)
      if question.is_resent then
        seldom = seldom or define_seldom()
        known = seldom.recall(question, at, id)
      end
      admitted = known > 0 and known / cost or admitted
      member = known == 0 and admitted > 0 and member_of(id, admitted * cost)
      if member and last_over_at == at then
        -- What has expired as a whole goes before anything is added. In a cluster's slot that is on its way to another
        -- node, a log that is gone can only be made there: then nothing of the item is. All its logs are of one slot.
        local gone
        for i = 1, #question do
          local window = question[i]
          if window.oldest ~= 0 and window.over then
            gone, window.oldest = keys[at + i], 0
            call('UNLINK', gone)
          end
        end
        fault = fault_of(gone, pcall('ZCARD', gone))
        admitted = not fault and admitted
      end
    end
    for i = 1, #question do
      local place, window = at + i, question[i]
      local key, used = keys[place], window.used
      if admitted then
        reply[place + 1] = used
        local excess, added = window.oldest ~= 0 and prune(key, window), known
        if member then
          added = add_entry(key, excess, admitted * cost, score, member)
          -- A log that was empty begins anew, with no end.
          if not lasts or used == 0 then
            keep_alive(key, window.ms, used == 0)
          end
        end
        if admitted < tells_below then
          local left, has_t = window.oldest ~= 0 and window.left or 0, excess or added > 1
          seldom = seldom or define_seldom()
          if admitted < checks then
            seldom.append_denial(place, window, cost, used + added, left, has_t, true)
          end
          if is_full then
            seldom.append_next(place, window, used + added, left, has_t)
          end
        end
      else
        reply[place + 1] = fault
      end
    end
    number, at = number + 1, at + #question
  end
  return reply_size, at
end

return check_items
