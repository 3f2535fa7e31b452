-- Changes what was said of policies to running Tollgates, and tells all of them. It is one hash, of which each field is
-- one thing that was said (src/policy/change.rs), so that of two who change the same at once one wins whole. One field
-- more, `:version`, is raised by each run that changes anything: who hears of a version that is not the next to the one
-- he has reads all of it again.
--
-- KEYS   [1] the hash
-- ARGV   [1] the channel
--        [2] most fields that there may be
--        then, for each field: its name, and '=' and its value; '-' if it is to go; or '?' and a value, if it is to go
--        as long as that is what it says
-- Reply  integers: the version, and how many fields are not what they were; -1 and 0 if there is no room
-- Cost   3 calls, and 2 for each field. The proxy bounds their number

local VERSION = ':version'

local call = redis.call
local hash, channel, max = KEYS[1], ARGV[1], tonumber(ARGV[2])

local version = tonumber(call('HGET', hash, VERSION) or '0')
local room = max - call('HLEN', hash)
local changed = {}
for i = 3, #ARGV, 2 do
  local field, kind, value = ARGV[i], ARGV[i + 1]:sub(1, 1), ARGV[i + 1]:sub(2)
  local was = call('HGET', hash, field)
  if kind == '=' and was ~= value then
    room = room - (was and 0 or 1)
    changed[#changed + 1] = { field, '=' .. value }
  elseif was and (kind == '-' or kind == '?' and was == value) then
    changed[#changed + 1] = { field, '-' }
  end
end
if room < 0 then
  return { -1, 0 }
end
if #changed == 0 then
  return { version, 0 }
end

version = string.format('%.0f', version + 1)
local words = { version }
call('HSET', hash, VERSION, version)
for _, change in ipairs(changed) do
  local field, what = change[1], change[2]
  if what == '-' then
    call('HDEL', hash, field)
  else
    call('HSET', hash, field, what:sub(2))
  end
  words[#words + 1] = field
  words[#words + 1] = what
end
-- As a request is written: whatever bytes a field has, they are found again.
for i, word in ipairs(words) do
  words[i] = '$' .. #word .. '\r\n' .. word .. '\r\n'
end
call('PUBLISH', channel, '*' .. #words .. '\r\n' .. table.concat(words))
return { tonumber(version), #changed }
