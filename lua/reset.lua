-- Forgets logs of some keys, and tells the proxies so. A reset of many keys, or of many windows, is many runs of this.
--
-- KEYS   the logs: for each key, those of the same windows
-- ARGV   [1] the channel
--        [2] number of windows of each key
--        then the length of each window in ms, and the keys to be told of: those of which this was the last run
-- Reply  integers: for each key 1 if one of the logs had an entry that still counted, else 0
-- Cost   for each log 1 call, 2 if it is there; and 1 for each key to be told of. The proxy bounds their number

local count = tonumber(ARGV[2])
local reply = {}

for first = 1, #KEYS, math.max(count, 1) do
  local is_live = false
  for i = 1, count do
    local log = KEYS[first + i - 1]
    local newest = redis.pcall('ZRANGE', log, '0', '0', 'WITHSCORES')
    -- What is no sorted set is none of ours, and no log that could deny.
    if newest[2] then
      is_live = is_live or ARGV[2 + i] * 1000 - newest[2] > now_us
      redis.call('UNLINK', log)
    end
  end
  reply[#reply + 1] = is_live and 1 or 0
end

-- Also of a key without state: a proxy may still remember having denied it.
for i = 3 + count, #ARGV do
  redis.call('PUBLISH', ARGV[1], ARGV[i])
end

return reply
