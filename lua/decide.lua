-- Decides items: what check and peek share. An item is a number of identical checks (of the same key, windows and
-- cost), decided one after another in one step: as many of them are admitted as fit into every window.
--
-- What a run may do is bounded, whatever its items ask and whatever their logs hold. An item costs some calls for each
-- window; beyond those a run reads some hundred entries at most and forgets a thousand more without reading them, over all
-- its items, each of which takes about a microsecond (run.lua; plain.lua forgets half as many besides). What that does not
-- suffice for is answered with a bound, never by an admission.

-- Items of which a limit is counted otherwise than by a log are another file's business (items.lua).
local items, define_items

-- Reads what is asked of a key: { checks = n, cost = n, whether its logs last, whether it was asked before, whether it is
-- to be told when more is free, and a window for each quota }. Most items of a batch ask the same of other keys, so that
-- what was read before need not be read again.
local questions = {}
local function read_question(packed)
  local question = questions[packed]
  if question then
    return question
  end
  local flags, checks, cost, at = struct.unpack('<BI4I4', packed)
  local lasts = flags % 2 == 1 and now_us <= tonumber(ARGV[2])
  question = { checks = checks, cost = cost, lasts = lasts, is_of_logs = flags % 16 < 8 }
  if flags > 1 then
    question.is_resent, question.is_full = flags % 4 >= 2, flags % 8 >= 4
  end
  if flags >= 16 then
    question.ahead_us, at = struct.unpack('<d', packed, at)
  elseif flags >= 8 then
    items = items or define_items()
    items.read_limits(question, packed, at)
    at = #packed + 1
  end
  while at <= #packed do
    local limit, window_ms
    limit, window_ms, at = struct.unpack('<I4d', packed, at)
    question[#question + 1] = new_window(window_ms, limit)
  end
  questions[packed] = question
  return question
end

-- What only some items need: for logs that hold t or expired entries, and for denials. Lua makes a function anew in each
-- run that comes by its definition, which costs as much as a fifth of a call; so these are made when they are first
-- needed.
local seldom
-- Where the last item stands of which a log has expired as a whole.
local last_over_at
local function define_seldom()
  -- What is not the weight of an entry weighs 1. None weighs more than 1e12: a limit is at most 1e9, and the largest
  -- group of checks 1024.
  local function weight_of(member)
    local colon = string.find(member, ':', 1, true)
    local weight = colon and tonumber(string.sub(member, colon + 1))
    return weight and weight >= 1 and weight <= 1e12 and weight % 1 == 0 and weight or 1
  end

  -- The weight of a log's entries from one rank to another, counted from the end, as all ranks here.
  local function weight_between(key, first, last)
    local entries, weight = first <= last and call('ZRANGE', key, first, last, 'REV') or {}, 0
    readable = readable - #entries
    for i = 1, #entries do
      weight = weight + weight_of(entries[i])
    end
    return weight
  end

  -- Reads on where entries of a log have expired. The log's item stands at `at`.
  local function measure_expired(key, window, at)
    local size, oldest, excess = window.used, window.oldest, window.excess
    if oldest == size then
      window.used, window.excess, window.over = 0, false, true
      last_over_at = at
    elseif not excess then
      window.gone = math.min(oldest, forgettable)
      forgettable = forgettable - window.gone
      window.left, window.used = oldest - window.gone, size - oldest
    else
      -- What counts weighs its number and the excess that is not of the expired. Where too many have expired, those
      -- that count may be few enough to be read instead, and leave something for forgetting some of the expired.
      local expired, live = oldest - 1, size - oldest
      local weight = expired > readable and live <= readable / 2 and weight_between(key, oldest, size - 1)
      window.gone = math.min(expired, readable)
      window.left = expired - window.gone
      window.excess = math.max(0, excess + window.gone - weight_between(key, 1, window.gone))
      window.used = weight or live + window.excess
      window.vague = window.left > 0 and not weight
    end
  end

  -- Looks from rank `first` for the last of the least number of oldest entries that weigh `needed` together. Returns
  -- its rank and their weight. If those that may be read do not weigh enough it returns the last of them: a request
  -- that needs more cannot fit before that one expires.
  local function walk(key, first, needed)
    local STEP = 100
    local next_rank, covered = first, 0
    while covered < needed and readable > 0 do
      -- No entry weighs less than 1, so no more of them can be needed.
      local step = math.min(STEP, needed - covered, readable)
      local entries = call('ZRANGE', key, next_rank, next_rank + step - 1, 'REV')
      readable = readable - #entries
      for i = 1, #entries do
        next_rank, covered = next_rank + 1, covered + weight_of(entries[i])
        if covered >= needed then
          break
        end
      end
      if #entries < step then
        break
      end
    end
    return math.max(first, next_rank - 1), math.max(1, covered)
  end

  -- Entries that are dated more than a window ahead were made before the clock stepped back, which was not later than
  -- now: dates them now, so that they count for one window more. Shares among them may be in use for an eighth of it yet,
  -- and are dated then. Whether that is all of them.
  local function redate(key, window)
    -- That many reads take as long as dating one entry anew.
    local WORTH = 4
    local ahead = call('ZCOUNT', key, '-inf', '(' .. score_of(now_us + window.us))
    local count = math.min(ahead, math.floor(readable / WORTH))
    readable = readable - count * WORTH
    if count > 0 then
      local words, now_score, share_score = {}, score_of(now_us), score_of(now_us + window.us / 8)
      for i, member in ipairs(call('ZRANGE', key, '0', count - 1)) do
        words[2 * i - 1], words[2 * i] = is_share(member) and share_score or now_score, member
      end
      call('ZADD', key, 'XX', unpack(words))
    end
    return count == ahead
  end

  -- Replies on a log, keys[place], of an item of which a check is denied. The log weighs `total`, still holds `kept`
  -- entries that have expired, and holds t or does not. Nothing is written unless it `may_write`.
  local function append_denial(place, window, cost, total, kept, has_t, may_write)
    local key, fits_in_us, empty_in_us, covered = keys[place], 0, 0, 0
    local needed = total + cost - window.limit
    -- A log that is forgotten has no entry, not even one that an earlier run of its batch made.
    local is_forgotten = window.oldest ~= 0 and window.over
    local newest_score = total > 0 and not is_forgotten and call('ZRANGE', key, '0', '0', 'WITHSCORES')[2]
    if newest_score then
      local newest_us = -newest_score
      local is_vague, latest_us = window.oldest ~= 0 and window.vague, newest_us
      if newest_us > now_us + window.us then
        is_vague = may_write and not redate(key, window) or is_vague
        newest_us, latest_us = now_us + window.us, now_us + window.us / 8
      end
      empty_in_us = math.max(0, newest_us + window.us - now_us)
      if needed > 0 and not is_vague then
        -- Where every entry weighs 1, the rank tells.
        local rank = kept + needed - 1
        covered = needed
        if has_t then
          rank, covered = walk(key, kept + 1, needed)
        end
        rank = string.format('%d', rank)
        local score = call('ZRANGE', key, rank, rank, 'REV', 'WITHSCORES')[2]
        local time_us = score and math.min(latest_us, -score) or now_us
        fits_in_us = math.max(0, time_us + window.us - now_us)
      end
    end
    append(place - 1, fits_in_us, empty_in_us, covered)
  end

  -- Replies of a log, keys[place], until when more is free under the limit than now. The rest as append_denial has it,
  -- which comes first where both are said.
  local function append_next(place, window, total, kept, has_t)
    local key, next_in_us, is_measured = keys[place], 0, window.oldest ~= 0
    if total > 0 and not (is_measured and window.over) then
      -- More than the limit is used where that was lowered.
      local needed = is_measured and window.vague and 1 or math.max(1, total + 1 - window.limit)
      local rank = kept + needed - 1
      if has_t then
        rank = needed == 1 and kept + 1 or walk(key, kept + 1, needed)
      end
      rank = string.format('%d', rank)
      local score = call('ZRANGE', key, rank, rank, 'REV', 'WITHSCORES')[2]
      local time_us = score and math.min(now_us + window.us, -score) or now_us
      next_in_us = math.max(0, time_us + window.us - now_us)
    end
    append(-place, next_in_us, 0, 0)
  end

  -- The weight with which an item of this id was counted when its batch ran before, or 0. If it was, what its windows
  -- say is made so that as many of its checks are admitted as then, though something may have expired since, and
  -- something else been counted under a higher limit.
  local function recall(question, at, id)
    local cost, longest = question.cost, 1
    for i = 2, #question do
      longest = question[i].ms > question[longest].ms and i or longest
    end
    -- All its windows counted it alike, and the longest remembers it for longest.
    local weight = counted(keys[at + longest], id, cost, question.checks)
    local member, least_free, tightest = member_of(id, weight), math.huge, nil
    for i = 1, weight > 0 and #question or 0 do
      local window = question[i]
      local score = call('ZSCORE', keys[at + i], member)
      local own = score and tonumber(score) < tonumber(window.expired_score) and weight or 0
      window.used = math.max(0, math.min(window.used - own, window.limit - weight))
      local free = window.limit - window.used - weight
      if free < least_free then
        least_free, tightest = free, window
      end
    end
    if tightest and weight < question.checks * cost then
      tightest.used = tightest.used + math.max(0, least_free - cost + 1)
    end
    return weight
  end

  return {
    measure_expired = measure_expired,
    append_denial = append_denial,
    append_next = append_next,
    recall = recall,
  }
end

-- Reads an item's logs, which follow keys[at]. Returns how many of its checks they have room for; or nil, and what is
-- wrong with one of them.
local function measure(question, at)
  local room, cost = question.checks, question.cost
  local size, oldest, t = known_size, known_oldest, known_t
  known_size, known_oldest, known_t = nil, nil, nil
  for i = 1, #question do
    local key, window = keys[at + i], question[i]
    if not size or i > 1 then
      size, t = pcall('ZCARD', key), nil
      oldest = size == 0 and 0 or pcall('ZCOUNT', key, window.expired_score, '+inf')
    end
    window.used, window.oldest = size, oldest
    if oldest ~= 0 then
      local fault, excess = fault_of(key, size), nil
      if not fault then
        excess = excess_of(key, t)
      end
      if excess == nil then
        return nil, fault or WRONG_TYPE
      end
      window.excess, window.gone, window.left, window.vague, window.over = excess, 0, 0, false, false
      if excess and oldest == 1 and size > 1 then
        window.used = size - 1 + excess
      else
        seldom = seldom or define_seldom()
        seldom.measure_expired(key, window, at)
      end
    end
    local free = window.limit - window.used
    if free < room * cost then
      room = math.floor(free / cost)
    end
  end
  return room > 0 and room or 0
end
