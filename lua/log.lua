-- The sliding-window log in a sorted set: how it is read, extended and searched. What check, peek and record share.
--
-- One set holds the log of one key and window. Its members, in the order in which they sort:
--   t             score: total weight of the entries, so that nothing is summed to count; at most about 2e9
--   x             score: unix time in ms at which the set expires; about 1.7e12
--   <id>          an entry of weight 1; score: when it was made, in us; about 1.7e15
--   <id>:<weight> a heavier entry. Ids hold no ':' and are neither t nor x
-- The set expires some time after its newest entry, because x is only moved when that entry would outlive it, and then
-- by a quarter of a window more than needed. So most admissions write two members and no time to live.
--
-- The registry is one sorted set over all keys: member <window_ms>, score: the latest x of any log of that window.
-- It tells reset.lua which logs a key may have, without a scan.
--
-- An entry made at t counts while t <= now < t + window:
--
--            t                         t + window
--   time ----[=========================)------->
--
-- Nothing here relies on the entries' times being past: should the clock step back, they count until their own ends.

local call = redis.call

-- Expired entries that are forgotten, per set and run. What is left over goes on counting, which can only deny.
local MAX_PRUNED = 500
-- Entries that are looked at, per set and run, to find when a request will fit.
local MAX_WALKED = 1000
local WALK_STEP = 100
-- The registry outlives every log in it: the longest window is 366 days, and its logs live a quarter longer.
local REGISTRY_TTL_MS = '39571200000'
-- How long a window stays registered after its last log expired, should the clock step back.
local REGISTRY_SLACK_MS = 60000
-- The rank of the oldest entry, behind t and x.
local FIRST = 2

local now_ms = math.ceil(now_us / 1000)
-- Numbers passed to Redis are printed in full each time; this one is in every write.
local now_score = string.format('%.0f', now_us)

local function weight_of(member)
  return tonumber(string.match(member, ':(%d+)$')) or 1
end

-- The reply of ZRANGE to t, x and the oldest entry, as far as there are any: { 't', total, 'x', x, id, time_us }.
-- Nil when the key holds something other than a log.
local function read_head(key)
  local head = redis.pcall('ZRANGE', key, '0', '2', 'WITHSCORES')
  if head.err then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then
      -- Asking again raises the error as this version of Redis words it.
      call('ZRANGE', key, '0', '2', 'WITHSCORES')
    end
    return nil
  end
  return head
end

-- How many of the oldest entries have expired, MAX_PRUNED at most, and what they weigh.
local function expired(key, oldest_us, window_us)
  local members = call('ZRANGEBYSCORE', key, oldest_us, now_us - window_us, 'LIMIT', '0', MAX_PRUNED)
  local weight = 0
  for i = 1, #members do
    weight = weight + weight_of(members[i])
  end
  return #members, weight
end

local registered = {}

local function register(window_ms, x)
  if registered[window_ms] then
    return
  end
  registered[window_ms] = true
  local is_new = call('ZADD', KEYS[1], 'GT', x, window_ms) == 1
  call('PEXPIRE', KEYS[1], REGISTRY_TTL_MS)
  if is_new then
    -- Windows that clients compute may all differ: without this the registry would only ever grow.
    call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - REGISTRY_SLACK_MS)
  end
end

-- Writes an entry and the total that includes it. Returns false if the entry was there already.
local function write_entry(key, head, window_ms, total, time_us, member)
  if head[4] and tonumber(head[4]) >= now_ms + window_ms then
    return call('ZADD', key, total, 't', time_us, member) > 0
  end
  local x = now_ms + window_ms + math.max(1, math.floor(window_ms / 4))
  local added = call('ZADD', key, total, 't', x, 'x', time_us, member)
  call('PEXPIREAT', key, x)
  register(window_ms, x)
  return added > 0
end

-- The time of the newest entry of a log that has one.
local function newest_us(key)
  return tonumber(call('ZRANGE', key, '-1', '-1', 'WITHSCORES')[2])
end

-- The time of the last of the least number of oldest entries, from rank `first`, that weigh `needed` together, and
-- what they weigh. Should MAX_WALKED entries weigh less, those of them: a request cannot fit earlier than they expire.
local function walk(key, first, total, needed)
  if needed > 1 and total == call('ZCARD', key) - first then
    -- All entries weigh 1, so the rank tells.
    local entry = call('ZRANGE', key, first + needed - 1, first + needed - 1, 'WITHSCORES')
    if entry[2] then
      return tonumber(entry[2]), needed
    end
  end
  local covered, last_us = 0, now_us
  for start = first, first + MAX_WALKED - 1, WALK_STEP do
    -- Each entry weighs at least 1, so no more of them can be needed.
    local step = math.min(WALK_STEP, needed - covered)
    local entries = call('ZRANGE', key, start, start + step - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      covered = covered + weight_of(entries[i])
      last_us = tonumber(entries[i + 1])
      if covered >= needed then
        return last_us, covered
      end
    end
    if #entries < 2 * step then
      break
    end
  end
  return last_us, covered
end

