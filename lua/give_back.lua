-- Gives back what was not used of shares: of entries that weigh more than was admitted for them. What was used stays, under
-- the time that the entry has. Done again it changes nothing, for then no entry of the old weight is there.
--
-- KEYS   the log of each entry; or none (keys.lua)
-- ARGV   for each entry: its id, what it weighs, and what of that was used; then the logs, if they are no KEYS
-- Reply  integers: for each entry 1 if it was made lighter, 0 if it is not there, -2 if its log is elsewhere
-- Cost   for each entry 2 calls, and 2 or 3 more if it is there. The proxy bounds the number of entries

local FIELDS = 3

local function give_back(key, at)
  local id, weight, used = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local member = member_of(id, weight)
  local score = pcall('ZSCORE', key, member)
  local fault = fault_of(key, score)
  if fault or not score then
    return fault == ELSEWHERE and ELSEWHERE or 0
  end
  local excess = excess_of(key) or 0
  local left = math.max(0, excess - (weight - 1) + math.max(0, used - 1))
  -- The lighter entry comes before the other goes: a log that is empty in between would lose its end.
  if used > 0 then
    call('ZADD', key, left, 't', score, member_of(id, used))
  elseif left > 0 then
    call('ZADD', key, left, 't')
  end
  if left > 0 then
    call('ZREM', key, member)
  else
    call('ZREM', key, member, 't')
  end
  return 1
end

local reply = {}
for number, key in ipairs(keys) do
  reply[number] = give_back(key, (number - 1) * FIELDS)
end

return reply
