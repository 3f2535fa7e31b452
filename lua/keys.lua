-- Which logs a run is about, and what is wrong with one that cannot be read. Stands before the scripts of the logs.
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
--   fault_of  what is wrong with a key, by what a call answered of it
-- Cost: no call, and less than one's time where the logs are passed.

local call, pcall = redis.call, redis.pcall
local WRONG_TYPE, ELSEWHERE = -1, -2

local keys, last_arg = KEYS, #ARGV
if #keys == 0 then
  local count = tonumber(ARGV[last_arg])
  last_arg = last_arg - count - 1
  -- At most some hundred: Lua's stack bears some thousand.
  keys = { unpack(ARGV, last_arg + 1, last_arg + count) }
end

-- What is wrong with the key, of which this was answered, as the proxy is told of it: WRONG_TYPE if it holds something
-- other than a sorted set, ELSEWHERE if this node of a cluster does not serve it, be it that it never did, or that its
-- slot is on its way to another node and the key is not, or no longer, here. Else nil. Any other error ends the script.
local function fault_of(key, answer)
  if type(answer) ~= 'table' or not answer.err then
    return nil
  elseif string.find(answer.err, 'to access a non local key', 1, true) then
    return ELSEWHERE
  elseif not string.find(answer.err, 'WRONGTYPE', 1, true) then
    -- Asking again raises the error, worded as this version of Redis does it.
    call('ZCARD', key)
  end
  return WRONG_TYPE
end

