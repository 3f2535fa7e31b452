-- What a run that decides items has said so far, and what it may still do. For check and peek.
--
-- Defines
--   reply        what is replied (check.lua), of which reply_size integers will be there whatever else is said
--   append       says more of a log, or of another state
--   readable     entries that may still be read
--   forgettable  and entries that may be forgotten without being read (decide.lua)
--   known_size, known_oldest, known_t
--                what plain.lua has read of the only log of the next item: its size, how many are `oldest` (log.lua), and
--                what Redis said of t. Nil if that was not asked

local reply, reply_size = { now_us }, #keys + 1
local readable, forgettable = 250, 1000
local known_size, known_oldest, known_t

local function append(place, first, second, third)
  local n = reply_size
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = place, first, second, third
  reply_size = n + 4
end

