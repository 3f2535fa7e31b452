-- Which logs a run is about. Stands before the scripts of the logs.
--
-- Before one Redis a script declares its logs, as KEYS. A node of a cluster lets it declare those of one slot only, but
-- without declaring them it may touch whatever the node serves. So it may also be told of them as arguments, and then
-- finds by itself which are elsewhere.
--
-- KEYS   the logs; or none, and the end of ARGV is
-- ARGV   ..., then the names of the logs, and how many these are
-- Defines
--   keys      the logs
--   last_arg  the last of ARGV that is neither a log nor their number
-- Cost: no call, and less than one's time where the logs are passed.

local keys, last_arg = KEYS, #ARGV
if #keys == 0 then
  local count = tonumber(ARGV[last_arg])
  last_arg = last_arg - count - 1
  -- At most some hundred: Lua's stack bears some thousand.
  keys = { unpack(ARGV, last_arg + 1, last_arg + count) }
end

