-- The states that are one number: how GCRA and fixed windows are kept. For whatever reads or writes one; counters.lua has the
-- rest. lua/log.lua has the log.
--
-- A state is a string, packed little-endian:
--   I4      unix time in seconds until which the state lives
--   I4, d, I4
--           GCRA: what the time that follows lacks of the exact one, as a fraction of a microsecond, whose denominator is
--           the first and whose numerator the last; and the whole microseconds of the unix time at which it will be empty
--           (the TAT)
--           fixed: 0; the unix time in us at which the period began that it counts for; and the weight counted
--   then MOST_IDS times at most, the newest first, who was counted: the last 8 characters of the batch's id, the item's number
--   in the batch (I2) and how many checks of it were admitted (I2)
-- It is written in place, by SETRANGE, for as long as it lives an eighth longer than it must: to set a TTL costs as much as
-- all the rest of SET. What most admissions leave as it is comes first, as each byte and each number that is packed counts.
--
-- GCRA's interval, window / limit, is seldom whole microseconds: with the fraction, whose denominator is the limit, no
-- admission is rounded, however many there are. Where the limit is another than the last, the fraction is rounded up, by
-- two parts at most of the new limit's: so a change of limit delays by less than 2/limit us, and never admits early.
--
-- A batch that runs again, or a record that is written again, finds by the ids what it counted before. Where more than
-- MOST_IDS groups of checks were counted for the key in between, it does not, and counts again: that can only deny.
--
-- Numbers are doubles, which hold whole ones to 2^53 = 9.007e15. Times are below 2e15 until the year 2033 and below 9e15
-- until 2255; no state is further ahead than 3.2e13 (366 days), a limit, a cost or a numerator is at most 1e9, and a
-- product that is compared is exact, or so far beyond what it is compared with that it need not be.

local STATE_SIZE, ID_SIZE, MOST_IDS = 20, 12, 6
-- Where the ids end that stay when there is one more.
local IDS_END = STATE_SIZE + ID_SIZE * (MOST_IDS - 1)
-- A state; the first of its ids, and the others.
local STATE, COUNTED = '<I4I4dI4', '<I4I4dI4c8I2I2c0'

-- By what a group of checks is known, but for its number: of a batch's id what stands before the first '.'.
local function tag_of(id)
  return string.sub('        ' .. string.match(id, '^[^.]*'), -8)
end

