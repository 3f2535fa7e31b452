-- Tells how the logs of one key stand. Writes nothing.
--
-- KEYS   logs of the key; or none (keys.lua)
-- ARGV   [1] most entries of a log to be told of, the newest first
--        [2] most of all logs together
--        then the length of each log's window in ms; then the logs, if they are no KEYS
-- Reply  integers: now_us; then for each log that holds an entry which counts
--          place      of the log among KEYS, from 0
--          used       weight of the entries that count. It may be too much where entries are heavier than 1 and more have
--                     expired, and more count, than may be read
--          entries    how many count
--          oldest_us  unix time at which the oldest of them was made
--          newest_us  and the newest
--          listed     how many entries follow: the time and the weight of each
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

for place, key in ipairs(keys) do
  local newest = pcall('ZRANGE', key, '0', '0', 'WITHSCORES')
  -- What is no sorted set is none of ours.
  local live = newest[2] and call('ZCOUNT', key, '-inf', '(' .. new_window(tonumber(ARGV[2 + place])).expired_score) or 0
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

return reply
