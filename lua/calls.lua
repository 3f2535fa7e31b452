-- How Redis is called, and what is wrong with a log that cannot be read. Stands before the scripts of the logs.

local call, pcall = redis.call, redis.pcall
local WRONG_TYPE, ELSEWHERE = -1, -2

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

