-- Decides items: what check and peek share. An item is a number of identical checks (of the same key, windows and
-- cost), decided one after another in one step: as many of them are admitted as fit into every window.

local keys = KEYS
local reply, reply_size = { now_us }, #KEYS

-- Reads what is asked of a key: { checks = n, cost = n, whether its logs last, and a window for each quota }. Most
-- items of a batch ask the same of other keys, so that what was read before need not be read again.
local questions = {}
local function read_question(packed)
  local question = questions[packed]
  if question then
    return question
  end
  local lasts, checks, cost, at = struct.unpack('<BI4I4', packed)
  question = { checks = checks, cost = cost, lasts = lasts == 1 and now_us <= tonumber(ARGV[2]) }
  while at <= #packed do
    local limit, window_ms
    limit, window_ms, at = struct.unpack('<I4d', packed, at)
    question[#question + 1] = new_window(window_ms, limit)
  end
  questions[packed] = question
  return question
end

-- Reads on where a log holds t or expired entries.
local function measure_oldest(key, window)
  -- Most entries that are forgotten, per log and run. What is left over goes on counting, which can only deny.
  local MAX_PRUNED = 500
  local size, oldest = window.used, window.oldest
  local excess = call('ZSCORE', key, 't')
  if not excess then
    local gone = math.min(oldest, MAX_PRUNED)
    window.used, window.gone, window.excess = size - gone, gone, false
    return
  end
  excess = excess + 0
  local expired = oldest > 1 and call('ZRANGE', key, '1', math.min(oldest - 1, MAX_PRUNED), 'REV') or {}
  for i = 1, #expired do
    excess = excess - weight_of(expired[i]) + 1
  end
  window.used, window.gone, window.excess = size - 1 - #expired + excess, #expired, excess
end

-- Reads an item's logs, which follow keys[at]. Returns how many of its checks they have room for, or nil if one of
-- them is no log.
local function measure(question, at)
  local room, cost = question.checks, question.cost
  for i = 1, #question do
    local key, window = keys[at + i], question[i]
    local size = pcall('ZCARD', key)
    local oldest = size == 0 and 0 or pcall('ZCOUNT', key, window.expired_score, '+inf')
    window.used, window.oldest = size, oldest
    if oldest ~= 0 then
      if is_wrong_type(key, size) then
        return nil
      end
      measure_oldest(key, window)
    end
    local free = window.limit - window.used
    if free < room * cost then
      room = math.floor(free / cost)
    end
  end
  return room > 0 and room or 0
end

-- Looks from rank `first`, counted from the end as all ranks here, for the last of the least number of oldest entries
-- that weigh `needed` together. Returns its time and their weight. If MAX_WALKED entries do not weigh enough it returns
-- the last of those: a request that needs more cannot fit before that one expires.
local function walk(key, first, needed)
  local MAX_WALKED, STEP = 1000, 100
  local time_us, covered = now_us, 0
  for start = first, first + MAX_WALKED - 1, STEP do
    -- No entry weighs less than 1, so no more of them can be needed.
    local step = math.min(STEP, needed - covered)
    local entries = call('ZRANGE', key, start, start + step - 1, 'REV', 'WITHSCORES')
    for i = 1, #entries, 2 do
      time_us, covered = -entries[i + 1], covered + weight_of(entries[i])
      if covered >= needed then
        return time_us, covered
      end
    end
    if #entries < 2 * step then
      break
    end
  end
  return time_us, covered
end

-- Replies on a log, keys[place], of an item of which a check is denied. The log weighs `total`, holds t or does not, and
-- still holds `gone` entries that have expired.
local function append_denial(place, window, cost, total, gone, has_t)
  local key, fits_in_us, empty_in_us, covered = keys[place], 0, 0, 0
  if total > 0 then
    local newest_us = -call('ZRANGE', key, '0', '0', 'WITHSCORES')[2]
    empty_in_us = math.max(0, newest_us + window.us - now_us)
  end
  local needed = total + cost - window.limit
  if total > 0 and needed > 0 then
    local first, time_us = gone + (has_t and 1 or 0)
    if has_t then
      time_us, covered = walk(key, first, needed)
    else
      -- Every entry weighs 1, so the rank tells.
      local rank = string.format('%d', first + needed - 1)
      local score = call('ZRANGE', key, rank, rank, 'REV', 'WITHSCORES')[2]
      time_us, covered = score and -score or now_us, needed
    end
    fits_in_us = math.max(0, time_us + window.us - now_us)
  end
  local n = reply_size
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = place - 2, fits_in_us, empty_in_us, covered
  reply_size = n + 4
end
