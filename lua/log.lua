-- The sliding-window log in a sorted set: how it is read, written and searched. What check, peek and record share.
--
-- One set holds the log of one key and window. Its members, in the order in which they sort:
--   t              score: total weight of the entries, at most about 2e9, so that nothing is summed to count
--   x              score: unix time in ms at which the set expires, about 1.7e12
--   <id>           an entry of weight 1; score: when it was made, unix time in us, about 1.7e15
--   <id>:<weight>  a heavier entry. Ids hold no ':' and are neither t nor x
-- x moves only when a new entry would outlive it, and then by a quarter of a window more than needed, so that most
-- admissions write t and their entry and set no time to live.
--
-- The registry is one sorted set for all keys: member <window_ms>, score: the latest x of any log of that window. It
-- tells reset.lua which logs a key may have, without a scan.
--
-- An entry made at t counts for t <= now < t + window:
--
--            t                         t + window
--   time ----[=========================)------->
--
-- Nothing relies on the entries' times being past. If the clock steps back they count until their own ends.

local call, floor, find = redis.call, math.floor, string.find

-- Most expired entries that are forgotten, per set and run. What is left over goes on counting, which can only deny.
local MAX_PRUNED = 500
-- Most entries that are looked at, per set and run, to find when a request will fit.
local MAX_WALKED = 1000
local WALK_STEP = 100
-- The rank of the oldest entry, behind t and x.
local FIRST = 2
-- 458 days. The registry outlives every log: the longest window is 366 days, its logs last a quarter longer.
local REGISTRY_TTL_MS = '39571200000'
-- How long a window stays registered after its last log has expired, in case the clock steps back.
local REGISTRY_SLACK_MS = 60000

-- Rounded up, so that what expires in ms does not do so before its time in us.
local now_ms = math.ceil(now_us / 1000)
-- Redis prints a number anew in each call that is given one; this one is in nearly all.
local now_score = string.format('%.0f', now_us)

-- A limit, and what a run needs to know of the window that it holds for.
local function new_quota(limit, window_ms)
  local min_x = now_ms + window_ms
  return {
    limit = limit,
    window_ms = window_ms,
    window_us = window_ms * 1000,
    min_x = min_x,
    new_x = min_x + math.max(1, floor(window_ms / 4)),
  }
end

local function weight_of(member)
  local colon = find(member, ':', 1, true)
  return colon and tonumber(string.sub(member, colon + 1)) or 1
end

-- Reads t, x and the oldest entry, as far as there are any: { 't', total, 'x', x, id, time_us }. Nil if the key holds
-- no sorted set.
local function read_head(key)
  local head = redis.pcall('ZRANGE', key, '0', '2', 'WITHSCORES')
  if head[6] then
    head[6] = head[6] + 0
  elseif head.err then
    if not find(head.err, 'WRONGTYPE', 1, true) then
      -- Asking again raises the error, worded as this version of Redis does it.
      call('ZRANGE', key, '0', '2', 'WITHSCORES')
    end
    return nil
  end
  head[2], head[4] = (head[2] or 0) + 0, (head[4] or 0) + 0
  return head
end

-- How many entries from the oldest have expired, MAX_PRUNED at most, and what they weigh together.
local function expired(key, oldest_us, window_us)
  local members = call('ZRANGEBYSCORE', key, oldest_us, now_us - window_us, 'LIMIT', '0', MAX_PRUNED)
  local weight = 0
  for i = 1, #members do
    weight = weight + weight_of(members[i])
  end
  return #members, weight
end

-- Adds an entry and writes the total, which includes it. Returns false if the entry was there already.
local registered = {}
local function add_entry(key, head, quota, total, time_us, member)
  if head[4] >= quota.min_x then
    return call('ZADD', key, total, 't', time_us, member) > 0
  end
  local added = call('ZADD', key, total, 't', quota.new_x, 'x', time_us, member)
  call('PEXPIREAT', key, quota.new_x)
  -- All that a run extends by the same window it extends to the same time.
  if not registered[quota.window_ms] then
    registered[quota.window_ms] = true
    local is_new = call('ZADD', KEYS[1], 'GT', quota.new_x, quota.window_ms) == 1
    call('PEXPIRE', KEYS[1], REGISTRY_TTL_MS)
    if is_new then
      -- The windows that clients compute may all differ; those whose logs are gone must not pile up.
      call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - REGISTRY_SLACK_MS)
    end
  end
  return added > 0
end

-- Looks from rank `first` for the last of the least number of oldest entries that weigh `needed` together. Returns
-- its time and their weight. If MAX_WALKED entries do not weigh enough it returns the last of those: a request that
-- needs more cannot fit before that one expires.
local function walk(key, first, total, needed)
  if needed > 1 and total == call('ZCARD', key) - first then
    -- Every entry weighs 1, so the rank tells.
    local rank = first + needed - 1
    return call('ZRANGE', key, rank, rank, 'WITHSCORES')[2] or now_us, needed
  end
  local time_us, covered = now_us, 0
  for start = first, first + MAX_WALKED - 1, WALK_STEP do
    -- No entry weighs less than 1, so no more of them can be needed.
    local step = math.min(WALK_STEP, needed - covered)
    local entries = call('ZRANGE', key, start, start + step - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      time_us, covered = entries[i + 1], covered + weight_of(entries[i])
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

-- Reads an item: number of checks, cost of one, and for each window its limit and its length in ms. Most items of a
-- batch ask the same of other keys, so that a text which was read before need not be read again.
local items = {}
local function read_item(text)
  if items[text] then
    return items[text]
  end
  local count, cost, at = string.match(text, '^(%d+) (%d+)()')
  local item = { count = count + 0, cost = cost + 0 }
  while at <= #text do
    local limit, window_ms
    limit, window_ms, at = string.match(text, '^ (%d+) (%d+)()', at)
    item[#item + 1] = new_quota(limit + 0, window_ms + 0)
  end
  items[text] = item
  return item
end

-- Of the windows of the item at hand, in order: what was read of the logs, how many entries have expired, and the
-- weight of the others.
local heads, gone, used = {}, {}, {}

-- Reads an item's logs, which start at KEYS[at]. Returns how many of its checks they have room for, or nil if one of
-- them is no log.
local function measure(item, at)
  for i = 1, #item do
    heads[i] = read_head(KEYS[at + i - 1])
    if not heads[i] then
      return nil
    end
  end
  local room = item.count
  for i = 1, #item do
    local head, quota, weight = heads[i], item[i], 0
    gone[i] = 0
    if head[6] and head[6] + quota.window_us <= now_us then
      gone[i], weight = expired(KEYS[at + i - 1], head[6], quota.window_us)
    end
    used[i] = head[2] - weight
    local room_here = floor((quota.limit - used[i]) / item.cost)
    if room_here < room then
      room = room_here
    end
  end
  return room > 0 and room or 0
end

local reply = { now_us }

-- Appends the reply on the i-th window of an item of which so many checks were admitted, which makes `total` the
-- weight in its log. The oldest entry that has not expired stands at rank `first`.
local function append_answer(key, item, i, admitted, total, first)
  local head, quota = heads[i], item[i]
  local fits_in_us, empty_in_us, covered = 0, 0, 0
  local denied = admitted < item.count
  -- A clock that has stepped back shows by an x or an entry that is later than any made now.
  local stepped_back = head[4] > quota.new_x or head[6] and head[6] > now_us
  if total > 0 and (denied or stepped_back) then
    local newest_us = call('ZRANGE', key, '-1', '-1', 'WITHSCORES')[2]
    empty_in_us = math.max(0, newest_us + quota.window_us - now_us)
  end
  local needed = total + item.cost - quota.limit
  if total > 0 and denied and needed > 0 then
    local time_us = head[6]
    -- What was read of the oldest entry is still true if nothing was admitted or forgotten.
    covered = total == used[i] and gone[i] == 0 and weight_of(head[5]) or 0
    if covered < needed then
      time_us, covered = walk(key, first, total, needed)
    end
    fits_in_us = math.max(0, time_us + quota.window_us - now_us)
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = used[i], fits_in_us, empty_in_us, covered
end

-- Appends the reply on an item of which a key holds no log.
local function append_wrong_type(item)
  for _ = 1, #item do
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = -1, 0, 0, 0
  end
end

