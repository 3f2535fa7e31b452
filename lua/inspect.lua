-- Tells how the logs of one key stand. Writes nothing.
--
-- KEYS   logs of the key; or none (keys.lua)
-- ARGV   [1] most entries of a log to be told of, the newest first
--        [2] most of all logs together
--        then the length of each log's window in ms, or '=' and what counter it is that is no log (counters.lua), and its
--        window's length in us, a double; then the logs, if they are no KEYS
-- Reply  integers: now_us; then for each log that holds an entry which counts
--          place      of the log among KEYS, from 0
--          used       weight of the entries that count. It may be too much where entries are heavier than 1 and more have
--                     expired, and more count, than may be read
--          entries    how many count
--          oldest_us  unix time at which the oldest of them was made
--          newest_us  and the newest
--          listed     how many entries follow: the time and the weight of each
--        A state that is no log has no entries. Its times are both one window before it is empty, and of GCRA, whose
--        state knows no limit, `used` is for how many ms it will not be
-- Cost   1 call for each log, and 3 to 6 more if it is there; READABLE entries are read at most over all logs, and those
--        that are told of. The proxy bounds both, and the number of logs

local READABLE = 250

local most, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local readable = READABLE
local reply = { now_us }

-- As decide.lua has it.
local function weight_of(member)
  local colon = string.find(member, ':', 1, true)
  local weight = colon and tonumber(string.sub(member, colon + 1))
  return weight and weight >= 1 and weight <= 1e12 and weight % 1 == 0 and weight or 1
end

local function weight_between(key, first, last)
  local entries, weight = call('ZRANGE', key, first, last), 0
  readable = readable - #entries
  for i = 1, #entries do
    weight = weight + weight_of(entries[i])
  end
  return weight
end

-- The weight of the `live` entries that count, which are the first, of a log whose t says `excess`.
local function used_of(key, live, excess)
  if not excess then
    return live
  end
  local expired = call('ZCARD', key) - 1 - live
  if expired <= readable then
    local gone = expired > 0 and weight_between(key, live, live + expired - 1) or 0
    return live + math.max(0, excess - (gone - expired))
  elseif live <= readable then
    return weight_between(key, 0, live - 1)
  end
  return live + excess
end

local function time_of(score)
  return -tonumber(score)
end

-- Replies on a state that is no log.
local function append_counter(place, key, packed)
  counters = counters or define_counters()
  local counter, rest = counters.read_counter(packed, 2)
  local window_us, value = struct.unpack('<d', packed, rest), pcall('GET', key)
  -- What is no string is none of ours.
  if type(value) ~= 'string' then
    return
  end
  local used, empty_us
  if counter.longest_us then
    local ahead_us, part = counters.read_gcra(value, 1, now_us)
    empty_us = ahead_us and now_us + ahead_us + part
    used = ahead_us and math.ceil((ahead_us + part) / 1000)
  else
    local _
    used, _, empty_us = counters.read_fixed(value, counter)
  end
  if used and used > 0 then
    for _, number in ipairs({ place - 1, used, 0, empty_us - window_us, empty_us - window_us, 0 }) do
      reply[#reply + 1] = number
    end
  end
end

-- Replies on a log.
local function append_log(place, key, window_ms)
  local newest = pcall('ZRANGE', key, '0', '0', 'WITHSCORES')
  -- What is no sorted set is none of ours.
  local live = newest[2] and call('ZCOUNT', key, '-inf', '(' .. new_window(window_ms).expired_score) or 0
  local excess
  if live > 0 then
    excess = excess_of(key)
  end
  if excess ~= nil then
    local oldest = call('ZRANGE', key, live - 1, live - 1, 'WITHSCORES')
    local listed = math.min(most, left, live)
    for _, number in ipairs({ place - 1, used_of(key, live, excess), live, time_of(oldest[2]), time_of(newest[2]), listed }) do
      reply[#reply + 1] = number
    end
    local entries = listed > 0 and call('ZRANGE', key, '0', listed - 1, 'WITHSCORES') or {}
    for i = 1, #entries, 2 do
      reply[#reply + 1] = time_of(entries[i + 1])
      reply[#reply + 1] = weight_of(entries[i])
    end
    left = left - listed
  end
end

for place, key in ipairs(keys) do
  local window_ms = tonumber(ARGV[2 + place])
  if window_ms then
    append_log(place, key, window_ms)
  else
    append_counter(place, key, ARGV[2 + place])
  end
end

return reply
