-- The sliding-window log in a sorted set: how it is read, written and searched. What check, peek and record share.
--
-- One set holds the log of one key and window. Its members, in the order in which they sort, newest first:
--   <id>           an entry of weight 1; score: minus the unix time in us at which it was made, about -1.7e15
--   <id>:<weight>  a heavier entry. Ids hold no ':' and are not t. Those of shares hold a '~': they are dated when the
--                  share is over, up to an eighth of the window ahead
--   t              only while heavier entries than 1 are in the log. Score: by how much the entries weigh more than
--                  their number
-- So a log weighs its size plus what t says; and one ZCOUNT from the time at which the window begins, which costs the
-- same however long the log is, tells of most logs that they hold neither t nor anything expired. Newest first, because
-- Redis looks for an entry's place from the first on, and in a set of up to zset-max-listpack-entries passes all that
-- sort before it. Nothing on the way of an admission makes Redis print a score: that costs as much as a call.
--
-- Whoever may write to Redis may write anything under a log's name. What is read from there is never taken for a number
-- that it is not: an error would end the script, and with it the answers to all other items.
--
-- An entry made at t counts for t <= now < t + window:
--
--            t                         t + window
--   time ----[=========================)------->
--
-- Nothing relies on the entries' times being past. If the clock steps back they count until their own ends, or, where
-- those are more than two windows away, for one window from when a check is denied because of them (decide.lua).

-- What a run needs to know of a window, the limit that holds for it if any does, and, of the log at hand:
--   used    weight of the entries that have not expired
--   oldest  number of its last members: entries that have expired, and t. Unless it is 0:
--   gone    number of the oldest entries that have expired and are to be forgotten
--   left    number of the entries that have expired and stay, because there are too many
--   excess  what t will say then; false if there is no t
--   vague   whether `used` may be too much, because too many have expired and too many count for either to be read
--   over    whether all entries have expired
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
    left = 0,
    excess = false,
    vague = false,
    over = false,
  }
end

-- What t says; false if there is no t, and nil if it says what it does in no log. Sums that stay below 1e15 are exact.
-- Redis is asked unless it has already said.
local function excess_of(key, said)
  local score = said
  if said == nil then
    score = call('ZSCORE', key, 't')
  end
  if not score then
    return false
  end
  local excess = score + 0
  if excess >= 0 and excess <= 1e15 and excess % 1 == 0 then
    return excess
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

-- Whether a member is a share's.
local function is_share(member)
  return string.find(member, '~', 1, true) ~= nil
end

-- The member by which a group of checks that was admitted with this weight is known.
local function member_of(id, weight)
  return weight == 1 and id or id .. ':' .. weight
end

-- How much of a group of `asked` checks, of `cost` each, a log has counted: the weight of whichever member the group
-- made, or 0. The proxy puts no more than 1024 checks into a group, and Lua's stack bears some thousand names.
local function counted(key, id, cost, asked)
  local names, weight = {}, 0
  for checks = 1, asked do
    names[checks] = member_of(id, checks * cost)
  end
  -- What is no log holds none of them.
  local times = pcall('ZMSCORE', key, unpack(names))
  for checks = 1, asked do
    weight = times[checks] and checks * cost or weight
  end
  return weight
end
