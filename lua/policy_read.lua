-- Reads what was said of policies to running Tollgates, a part at a time, so that Redis is not held up however much it
-- is.
--
-- KEYS   [1] the hash
-- ARGV   [1] the cursor: '0' at first, then what the last reply has
--        [2] about how many fields to read
-- Reply  strings: the version, or '0' if there is none; the next cursor, '0' once all was read; then the fields, each with
--        its value. What does not change meanwhile is read once at least
-- Cost   2 calls

local call = redis.call
local hash = KEYS[1]

local read = call('HSCAN', hash, ARGV[1], 'COUNT', ARGV[2])
local reply = { call('HGET', hash, ':version') or '0', read[1] }
for i, word in ipairs(read[2]) do
  reply[i + 2] = word
end
return reply
