-- Keeps the registry: one sorted set for all keys that says which counters are in use, so that the states of a key can be
-- found without a scan. Member: what the names of a counter's states end in; score: unix time in ms until which one of
-- them may live. The proxies register a counter before they make its first state, and again every so often.
--
-- KEYS   [1] the registry
-- ARGV   [1] most counters that may be registered
--        [2] ms for which a counter is registered beyond the time that a state made now may live
--        then, for each counter to be registered, its name and how long a state lives at most, in ms
-- Reply  if there were counters to be registered, integers: how many are registered, and for each of them 1 if it is,
--        0 if there was no room; else strings: how many are registered, and their names
-- Cost   1 to 3 calls, and 2 for each counter to be registered. It forgets MAX_FORGOTTEN counters at most that are no
--        longer in use

local MAX_FORGOTTEN = 100

local call = redis.call
local registry, max, spare_ms = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local now_ms = math.floor(now_us / 1000)

local expired = call('ZRANGE', registry, '-inf', now_ms, 'BYSCORE', 'LIMIT', '0', MAX_FORGOTTEN)
if #expired > 0 then
  call('ZREM', registry, unpack(expired))
end
local count = call('ZCOUNT', registry, now_ms, '+inf')

if #ARGV == 2 then
  return { string.format('%d', count), unpack(call('ZRANGE', registry, now_ms, '+inf', 'BYSCORE', 'LIMIT', '0', max)) }
end

local reply = { count }
for i = 3, #ARGV, 2 do
  local counter, life_ms = ARGV[i], ARGV[i + 1]
  local until_ms = call('ZSCORE', registry, counter)
  local is_new = not until_ms or tonumber(until_ms) < now_ms
  local has_room = not is_new or count < max
  if has_room then
    call('ZADD', registry, 'GT', string.format('%.0f', now_ms + life_ms + spare_ms), counter)
    count = count + (is_new and 1 or 0)
  end
  reply[#reply + 1] = has_room and 1 or 0
end
reply[1] = count
-- 458 days: the registry outlives every state. The longest window is 366 days, its logs last a quarter longer.
call('PEXPIRE', registry, '39571200000')
return reply
