-- When entries of a log were made, and how long the log lives: what is needed wherever one is made. log.lua has the rest.
-- Check has this twice, for plain.lua and for the rest, as what is captured costs a run as much as what is made.

-- The score of an entry made then. As text, because Redis prints a number anew in each call that is given one; in two
-- parts, because Lua prints integers sooner than a double of that size, and may print only those of 32 bits.
local function score_of(time_us)
  return string.format('-%d%06d', math.floor(time_us / 1000000), time_us % 1000000)
end

-- Sees to it that a log lives as long as an entry made now counts, and an eighth of the window longer, so that one made
-- soon need not look. What is extended is extended by a quarter, so that most runs that look find that it will do. A log
-- that is known to be new has no end yet; of one that is not known to be, Redis says so: -1.
local function keep_alive(key, ms, is_new)
  -- Redis rounds what is left down, and the end of the entry must be rounded up.
  if is_new or redis.call('PTTL', key) <= ms + math.floor(ms / 8) then
    redis.call('PEXPIREAT', key, math.ceil(now_us / 1000) + ms + math.max(1, math.floor(ms / 4)))
  end
end

