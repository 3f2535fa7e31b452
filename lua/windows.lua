-- Keeps the registry: one sorted set for all keys that says which windows are in use, so that the logs of a key can be
-- found without a scan. Member: a window in ms; score: unix time in ms until which a log of that window may live. The
-- proxies register a window before they make its first log, and again every so often.
--
-- KEYS   [1] the registry
-- ARGV   [1] most windows that may be registered
--        [2] ms for which a window is registered beyond the time that a log made now may live
--        then the windows to be registered, if any
-- Reply  integers: how many windows are registered; then, if there were windows to be registered, for each of them
--        1 if it is, 0 if there was no room; else the windows that are registered
-- Cost   1 to 3 calls, and 2 for each window to be registered. It forgets MAX_FORGOTTEN windows at most that are no
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
local reply = { count }

if #ARGV == 2 then
  for _, window in ipairs(call('ZRANGE', registry, now_ms, '+inf', 'BYSCORE', 'LIMIT', '0', max)) do
    reply[#reply + 1] = tonumber(window) or 0
  end
  return reply
end

for i = 3, #ARGV do
  local window = ARGV[i]
  local until_ms = call('ZSCORE', registry, window)
  local is_new = not until_ms or tonumber(until_ms) < now_ms
  local has_room = not is_new or count < max
  if has_room then
    -- A log lives a quarter longer than its window.
    call('ZADD', registry, 'GT', string.format('%.0f', now_ms + window + math.ceil(window / 4) + spare_ms), window)
    count = count + (is_new and 1 or 0)
  end
  reply[i - 1] = has_room and 1 or 0
end
reply[1] = count
-- 458 days: the registry outlives every log. The longest window is 366 days, its logs last a quarter longer.
call('PEXPIRE', registry, '39571200000')
return reply
