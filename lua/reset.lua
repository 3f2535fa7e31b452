-- Forgets logs of some keys, and tells the proxies so. A reset of many keys, or of many windows, is many runs of this.
--
-- KEYS   the logs: for each key, those of the same windows; or none (keys.lua)
-- ARGV   [1] the channel
--        [2] number of windows of each key
--        then the length of each window in ms, or what counter it is that is no log (counters.lua); then, if this is the last run for these keys, the keys, to be told of;
--        then the logs, if they are no KEYS
-- Reply  integers: for each key 1 if one of the logs had an entry that still counted, 0 if none had, -2 if one of them
--        is elsewhere: then none of the key's was forgotten, and the key is not told of
-- Cost   for each log 1 call; for each key 1 if it has logs, and 1 if it is to be told of. The proxy bounds the number
--        of logs

-- Whether something counts still in a state that is no log.
local function is_live_counter(value, counter)
  if counter.longest_us then
    local ahead_us, part = counters.read_gcra(value, 1, now_us)
    return ahead_us ~= nil and ahead_us + part > 0
  end
  local used = counters.read_fixed(value, counter)
  return used ~= nil and used > 0
end

local channel, count = ARGV[1], tonumber(ARGV[2])
local before_first_key = 2 + count
local keys_told = last_arg - before_first_key

-- Of `count` logs from keys[first] on: those that are there, and whether one has an entry that still counts; or nil if
-- one is elsewhere.
local function look_at(first)
  local there, is_live = {}, false
  for i = 1, count do
    local log = keys[first + i - 1]
    local window_ms = tonumber(ARGV[2 + i])
    local newest
    if window_ms then
      newest = pcall('ZRANGE', log, '0', '0', 'WITHSCORES')
    else
      newest = pcall('GET', log)
    end
    if fault_of(log, newest) == ELSEWHERE then
      return nil
    end
    -- What is no sorted set is none of ours, and no log that could deny.
    if not window_ms then
      counters = counters or define_counters()
      if type(newest) == 'string' then
        there[#there + 1] = log
        is_live = is_live or is_live_counter(newest, counters.read_counter(ARGV[2 + i], 2))
      end
    elseif newest[2] then
      there[#there + 1] = log
      is_live = is_live or window_ms * 1000 - newest[2] > now_us
    end
  end
  return there, is_live
end

local reply = {}
for number = 1, count > 0 and #keys / count or keys_told do
  local there, is_live = look_at((number - 1) * count + 1)
  reply[number] = there and (is_live and 1 or 0) or ELSEWHERE
  if there and #there > 0 then
    call('UNLINK', unpack(there))
  end
  -- Also of a key without state: a proxy may still remember having denied it.
  if there and number <= keys_told then
    call('PUBLISH', channel, ARGV[before_first_key + number])
  end
end

return reply
