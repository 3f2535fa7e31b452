-- Forgets keys, in all windows, and tells the proxies so.
--
-- KEYS   [1] the registry. The logs are not named: which ones there can be only the registry knows
-- ARGV   [1] the channel; then for each key the name of its logs up to the window, and the key
-- Reply  how many of the keys had any entry that still counted; a key named twice had it once
-- Cost   for each key and registered window 1 call, 2 if there is a log; and 1 for each key

-- Windows stay registered a minute past their last log, should the clock step back.
local SLACK_MS = 60000

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', math.floor(now_us / 1000) - SLACK_MS)
local windows = redis.call('ZRANGE', KEYS[1], '0', '-1')
local had_state = 0

for arg_at = 2, #ARGV, 2 do
  local is_live = false
  for i = 1, #windows do
    local log = ARGV[arg_at] .. ':' .. windows[i]
    local newest = redis.pcall('ZRANGE', log, '0', '0', 'WITHSCORES')
    -- What is no sorted set is none of ours, and no log that could deny.
    if newest[2] then
      is_live = is_live or windows[i] * 1000 - newest[2] > now_us
      redis.call('UNLINK', log)
    end
  end
  if is_live then
    had_state = had_state + 1
  end
  -- Also for a key without state: a proxy may still remember having denied it.
  redis.call('PUBLISH', ARGV[1], ARGV[arg_at + 1])
end

return had_state
