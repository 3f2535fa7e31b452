-- What time it is, for the scripts that follow: the clock of the Redis that runs them, so that the clocks of the
-- proxies do not matter. TIME is read once a run: whatever a batch decides, it decides at one moment.
--
-- Defines
--   now_us   unix time in microseconds, a whole number; about 1.7e15, which a double holds exactly
-- Cost: one call.
--
-- A test may put another time in its place. It must be a real date: log.lua relies on times in microseconds being
-- far above times in milliseconds, and EXPIREs by this clock, so that a time in the past deletes what is written.

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])

