-- Writes entries under times of their own: what was admitted while Redis could not be asked. Enforces no limit.
--
-- Each entry is a group of identical checks that Redis may have run after all, late. If a member of the
-- group's id is there, only what it lacks is added, as `<id>-` or `<id>-:<weight>`: running this again adds nothing.
-- Nothing is dated later than now but a share, by an eighth of its window at most.
-- What is no log is left alone. States that are no logs are dealt with alike, by the ids that they hold (counters.lua).
--
-- KEYS   the log of each entry; or none (keys.lua)
-- ARGV   for each entry: id, unix time in us, cost of one check, number of checks admitted (at least 1), number of
--        checks in the group (at most 1024), and the window's length in ms; or in its place, if this is no log, packed,
--        '=', the item's number (16 bits), the counter (counters.lua) and, of GCRA, by how much one check moves its state:
--        in us (a double) and parts of one, and how many parts are one (32 bits each); then the logs, if they are no KEYS
-- Reply  integers: for each entry 1 if it was written, 0 if there was nothing to write, -2 if its log is elsewhere
-- Cost   for each entry 3 calls, one of which looks for as many names as there are checks in the group; 4 if the log
--        lacks something of it, 5 if that is added, and 1 or 2 more for the TTL. An entry that has expired costs
--        nothing. For each state that is no log 1 call, and 1 more if it is written. The proxy bounds the number of
--        entries and that of the names

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
  keep_alive(key, window.ms, false)
  return true
end

-- Counts a group in a state of GCRA as if that had been asked then. Whether anything of it is left by now.
local function add_to_gcra(key, packed, at, time_us, counter, value, missing, id)
  local step_us, step_part, of = struct.unpack('<dI4I4', packed, at)
  local us, part = 0, missing * step_part
  if value then
    local part_before
    us, part_before = counters.read_gcra(value, of, time_us)
    if not us then
      return false
    end
    part = part + part_before
  end
  us = us + missing * step_us + math.floor(part / of)
  local tat_us = math.min(time_us + us, now_us + counter.longest_us)
  if tat_us < now_us then
    return false
  end
  local until_s = value and counters.until_of(value)
  counters.write(key, until_s, tat_us, part % of, of, id.tag, id.number, id.admitted, id.others, tat_us, tat_us - now_us)
  return true
end

-- The same in one of a fixed window.
local function add_to_fixed(key, time_us, counter, value, weight, id)
  local MOST = 4294967295
  local used, from_us, until_us = 0, counter.start_us, counter.end_us
  if value then
    used, from_us, until_us = counters.read_fixed(value, counter)
  end
  if not used or time_us < from_us then
    return false
  end
  used = math.min(MOST, used + weight)
  local until_s, length_us = value and counters.until_of(value), until_us - from_us
  counters.write(key, until_s, from_us, used, 0, id.tag, id.number, id.admitted, id.others, until_us, length_us)
  return true
end

-- Adds what a state that is no log lacks of a group. Replies whether there was something.
local function add_to_counter(key, at, time_us)
  counters = counters or define_counters()
  local cost, admitted, packed = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), ARGV[at + 6]
  local id = { tag = tag_of(ARGV[at + 1]), number = struct.unpack('<I2', packed, 2), admitted = admitted, others = '' }
  local counter, rest = counters.read_counter(packed, 4)
  local value, known = pcall('GET', key), 0
  local fault = fault_of(key, value)
  if fault then
    return fault == ELSEWHERE and ELSEWHERE or 0
  end
  if value then
    known, id.others = counters.recall(value, id.tag, id.number)
  end
  local missing, is_added = admitted - known, false
  if missing > 0 and counter.longest_us then
    is_added = add_to_gcra(key, packed, rest, time_us, counter, value, missing, id)
  elseif missing > 0 then
    is_added = add_to_fixed(key, time_us, counter, value, missing * cost, id)
  end
  return is_added and 1 or 0
end

-- The same of a log.
local windows = {}
local function add_to_log(key, at, time_us, ms)
  local window = windows[ms] or new_window(ms)
  windows[ms] = window
  time_us = math.min(time_us, is_share(ARGV[at + 1]) and now_us + window.us / 8 or now_us)
  if time_us + window.us <= now_us then
    return 0
  end
  local fault = fault_of(key, pcall('ZCARD', key))
  local excess
  if not fault then
    excess = excess_of(key)
  end
  if fault == ELSEWHERE then
    return ELSEWHERE
  end
  return excess ~= nil and add_missing(key, window, excess, at, time_us) and 1 or 0
end

local reply = {}
for number, key in ipairs(keys) do
  local at = (number - 1) * FIELDS
  local time_us, ms = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 6])
  reply[number] = ms and add_to_log(key, at, time_us, ms) or add_to_counter(key, at, math.min(now_us, time_us))
end

return reply
