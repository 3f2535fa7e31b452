-- What time it is, for the scripts that follow: the clock of the Redis that runs them, so that the clocks of the
-- proxies do not matter. TIME is read once a run: whatever a batch decides, it decides at one moment.
--
-- Defines
--   now_us   unix time in microseconds, a whole number; about 1.7e15, which a double holds exactly
-- Cost: one call.
--
-- A test may put another time in its place. It must be a real date, not past: log.lua relies on times in microseconds
-- being far above weights, and sets by this clock when a log expires, so that a time in the past deletes what is
-- written. What is left until then Redis counts by its own clock: a log that is written an hour ahead lives an hour
-- longer than it needs.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

