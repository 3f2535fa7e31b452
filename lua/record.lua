-- Writes entries under times of their own: what was admitted while Redis could not be asked. Enforces no limit.
--
-- Each entry is a group of identical checks that Redis may have run after all, late. If a member of the
-- group's id is there, only what it lacks is added, as `<id>-` or `<id>-:<weight>`: running this again adds nothing.
-- What is no log is left alone.
--
-- KEYS   the logs, in the order of the entries and, in each, of its windows
-- ARGV   for each entry: id, unix time in us, cost of one check, number of checks admitted (at least 1), number of
--        checks in the group (at most 1024), number of windows, and the length of each window in ms
-- Reply  the number of entries that were written to at least one log
-- Cost   for each entry 1 call, which looks for as many names as there are checks in the group; for each window 3 calls,
--        5 if there is something to add, and 1 or 2 more for the TTL. An entry that has expired costs nothing. The
--        proxy bounds the sums of the windows and of the names

local windows = {}
local written = 0
local key_at, arg_at = 1, 1

while arg_at <= #ARGV do
  local id, time_us, cost = ARGV[arg_at], math.min(now_us, tonumber(ARGV[arg_at + 1])), tonumber(ARGV[arg_at + 2])
  local admitted, asked = tonumber(ARGV[arg_at + 3]), tonumber(ARGV[arg_at + 4])
  local count = tonumber(ARGV[arg_at + 5])
  local longest, is_written = 1, false
  for i = 2, count do
    if tonumber(ARGV[arg_at + 5 + i]) > tonumber(ARGV[arg_at + 5 + longest]) then
      longest = i
    end
  end
  -- All windows counted the group alike, and the longest remembers it for longest.
  local weight = counted(KEYS[key_at + longest - 1], id, cost, asked)
  for i = 1, count do
    local key, ms = KEYS[key_at + i - 1], tonumber(ARGV[arg_at + 5 + i])
    windows[ms] = windows[ms] or new_window(ms)
    local is_due = time_us + windows[ms].us > now_us
    local is_log = is_due and not is_wrong_type(key, pcall('ZCARD', key))
    local excess = is_log and excess_of(key)
    if is_log and excess ~= nil then
      local known = weight > 0 and call('ZSCORE', key, member_of(id, weight)) and weight or 0
      local missing = admitted * cost - known
      local member = member_of(known > 0 and id .. '-' or id, missing)
      if missing > 0 and not call('ZSCORE', key, member) then
        add_entry(key, excess, missing, score_of(time_us), member)
        keep_alive(key, windows[ms])
        is_written = true
      end
    end
  end
  written = written + (is_written and 1 or 0)
  key_at, arg_at = key_at + count, arg_at + 6 + count
end

return written
