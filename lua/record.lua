-- Writes entries under times of their own: what was admitted while Redis could not be asked. Enforces no limit.
--
-- Each entry is a group of identical checks that Redis may have run after all, late. If a member of the
-- group's id is there, only what it lacks is added, as `<id>-` or `<id>-:<weight>`: running this again adds nothing.
--
-- KEYS   [1] the registry; then the logs, in the order of the entries and, in each, of its windows
-- ARGV   [1] not used; then for each entry: id, unix time in us, cost of one check, number of checks admitted (at
--        least 1), number of checks in the group, number of windows, and the length of each window in ms
-- Reply  the number of entries that were written to at least one log
-- Cost   for each window 2 calls if there is nothing to add, else 4, and in both 1 more for each further 1000 checks
--        of the group; TTL and registry as in check.lua. An entry that has expired costs nothing

-- Names looked up in one call; Lua's stack bounds them.
local NAMES_PER_CALL = 1000

local function member_of(id, weight)
  return weight == 1 and id or id .. ':' .. weight
end

-- The weight with which the group has been counted: that of all its possible members that are there.
local function counted(key, id, cost, asked)
  local weight = 0
  for first = 1, asked, NAMES_PER_CALL do
    local names = {}
    for checks = first, math.min(asked, first + NAMES_PER_CALL - 1) do
      names[#names + 1] = member_of(id, checks * cost)
    end
    local times = call('ZMSCORE', key, unpack(names))
    for i = 1, #names do
      if times[i] then
        weight = weight + (first + i - 1) * cost
      end
    end
  end
  return weight
end

local windows = {}
local written = 0
local key_at, arg_at = 2, 2

while arg_at <= #ARGV do
  local id, time_us, cost = ARGV[arg_at], math.min(now_us, tonumber(ARGV[arg_at + 1])), tonumber(ARGV[arg_at + 2])
  local admitted, asked = tonumber(ARGV[arg_at + 3]), tonumber(ARGV[arg_at + 4])
  local count = tonumber(ARGV[arg_at + 5])
  local is_written = false
  for i = 1, count do
    local key, ms = KEYS[key_at + i - 1], tonumber(ARGV[arg_at + 5 + i])
    windows[ms] = windows[ms] or new_window(ms)
    local is_due = time_us + windows[ms].us > now_us
    local excess = is_due and redis.pcall('ZSCORE', key, 't')
    if is_due and not is_wrong_type(key, excess) then
      local known = counted(key, id, cost, asked)
      local missing = admitted * cost - known
      local member = member_of(known > 0 and id .. '-' or id, missing)
      if missing > 0 and not call('ZSCORE', key, member) then
        add_entry(key, excess and excess + 0, missing, score_of(time_us), member)
        keep_alive(key, windows[ms])
        is_written = true
      end
    end
  end
  written = written + (is_written and 1 or 0)
  key_at, arg_at = key_at + count, arg_at + 6 + count
end

return written
