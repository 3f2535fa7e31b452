-- Writes entries under times of their own: what was admitted while Redis could not be asked. Enforces no limit.
--
-- Each entry is a group of identical checks that Redis may have run after all, late. If a member of the
-- group's id is there, only what it lacks is added, as `<id>-` or `<id>-:<weight>`: running this again adds nothing.
-- What is no log is left alone.
--
-- KEYS   the log of each entry; or none (keys.lua)
-- ARGV   for each entry: id, unix time in us, cost of one check, number of checks admitted (at least 1), number of
--        checks in the group (at most 1024), and the window's length in ms; then the logs, if they are no KEYS
-- Reply  integers: for each entry 1 if it was written, 0 if there was nothing to write, -2 if its log is elsewhere
-- Cost   for each entry 3 calls, one of which looks for as many names as there are checks in the group; 4 if the log
--        lacks something of it, 5 if that is added, and 1 or 2 more for the TTL. An entry that has expired costs
--        nothing. The proxy bounds the number of entries and that of the names

local FIELDS = 6

-- Adds what a log, whose t says `excess`, lacks of a group. Whether there was something.
local function add_missing(key, window, excess, at, time_us)
  local id, cost = ARGV[at + 1], tonumber(ARGV[at + 3])
  local admitted, asked = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local known = counted(key, id, cost, asked)
  local missing = admitted * cost - known
  local member = member_of(known > 0 and id .. '-' or id, missing)
  if missing <= 0 or call('ZSCORE', key, member) then
    return false
  end
  add_entry(key, excess, missing, score_of(time_us), member)
  keep_alive(key, window, false)
  return true
end

local windows, reply = {}, {}
for number, key in ipairs(keys) do
  local at = (number - 1) * FIELDS
  local time_us, ms = math.min(now_us, tonumber(ARGV[at + 2])), tonumber(ARGV[at + 6])
  local window = windows[ms] or new_window(ms)
  windows[ms], reply[number] = window, 0
  if time_us + window.us > now_us then
    local fault = fault_of(key, pcall('ZCARD', key))
    local excess
    if not fault then
      excess = excess_of(key)
    end
    if fault == ELSEWHERE then
      reply[number] = ELSEWHERE
    elseif excess ~= nil and add_missing(key, window, excess, at, time_us) then
      reply[number] = 1
    end
  end
end

return reply
