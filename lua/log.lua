-- The sliding-window log in a sorted set: how it is read, written and searched. What check, peek and record share.
--
-- One set holds the log of one key and window. Its members, in the order in which they sort, newest first:
--   <id>           an entry of weight 1; score: minus the unix time in us at which it was made, about -1.7e15
--   <id>:<weight>  a heavier entry. Ids hold no ':' and are not t
--   t              only while heavier entries than 1 are in the log. Score: by how much the entries weigh more than
--                  their number, at most about 1e9
-- So a log weighs its size plus what t says; and one ZCOUNT from the time at which the window begins, which costs the
-- same however long the log is, tells of most logs that they hold neither t nor anything expired. Newest first, because
-- Redis looks for an entry's place from the first on, and in a set of up to zset-max-listpack-entries passes all that
-- sort before it. Nothing on the way of an admission makes Redis print a score: that costs as much as a call.
--
-- The registry is one sorted set for all keys: member <window_ms>, score: unix time in ms until which a log of that
-- window may live. It tells reset.lua which logs a key may have, without a scan.
--
-- An entry made at t counts for t <= now < t + window:
--
--            t                         t + window
--   time ----[=========================)------->
--
-- Nothing relies on the entries' times being past. If the clock steps back they count until their own ends.

local call, pcall = redis.call, redis.pcall

-- The score of an entry made then. As text, because Redis prints a number anew in each call that is given one.
local function score_of(time_us)
  return string.format('%.0f', -time_us)
end

-- What a run needs to know of a window, the limit that holds for it if any does, and, of the log at hand:
--   used    weight of the entries that have not expired
--   oldest  number of its last members: entries that have expired, and t. Unless it is 0:
--   gone    number of the entries that have expired and are to be forgotten
--   excess  what t will say then; false if there is no t
local function new_window(ms, limit)
  local us = ms * 1000
  return {
    ms = ms,
    us = us,
    limit = limit,
    -- Entries of that score or more have expired.
    expired_score = score_of(now_us - us),
    -- Here so that the table need not grow.
    used = 0,
    oldest = 0,
    gone = 0,
    excess = false,
  }
end

local function weight_of(member)
  local colon = string.find(member, ':', 1, true)
  return colon and tonumber(string.sub(member, colon + 1)) or 1
end

-- Whether the key, of which this was answered, holds something other than a log. Any other error ends the script.
local function is_wrong_type(key, answer)
  if type(answer) ~= 'table' then
    return false
  end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then
    -- Asking again raises the error, worded as this version of Redis does it.
    call('ZCARD', key)
  end
  return true
end

-- Sees to it that a log lives as long as an entry made now counts, and an eighth of the window longer, so that one made
-- soon need not look. What is extended is extended by a quarter, so that most runs that look find that it will do.
local registered
local function keep_alive(key, window)
  -- Redis rounds what is left down, and the end of the entry must be rounded up. A set that is new has no end: -1.
  if call('PTTL', key) > window.ms + math.floor(window.ms / 8) then
    return
  end
  local now_ms = math.ceil(now_us / 1000)
  local until_ms = now_ms + window.ms + math.max(1, math.floor(window.ms / 4))
  call('PEXPIREAT', key, until_ms)
  -- All that a run extends by the same window it extends to the same time.
  registered = registered or {}
  if registered[window.ms] then
    return
  end
  registered[window.ms] = true
  local is_new = call('ZADD', KEYS[1], 'GT', until_ms, window.ms) == 1
  -- 458 days: the registry outlives every log. The longest window is 366 days, its logs last a quarter longer.
  call('PEXPIRE', KEYS[1], '39571200000')
  if is_new then
    -- The windows that clients compute may all differ; those whose logs are gone must not pile up. They stay a minute
    -- longer, in case the clock steps back.
    call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - 60000)
  end
end

-- Adds an entry to a log whose t says `excess`, or false if there is none. Returns the weight that it added: 0 if the
-- entry was there already. The log must then be kept alive as long as the entry counts.
local function add_entry(key, excess, weight, score, member)
  if weight == 1 then
    return call('ZADD', key, score, member)
  end
  local added = call('ZADD', key, (excess or 0) + weight - 1, 't', score, member) - (excess and 0 or 1)
  if added == 0 and excess then
    call('ZADD', key, excess, 't')
  elseif added == 0 then
    call('ZREM', key, 't')
  end
  return added * weight
end
