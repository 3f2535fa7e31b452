-- Decides throttles (CL.THROTTLE, RL.THROTTLE) on the keys and values of redis-cell, to the nanosecond.
--
-- The state of a key is its TAT, the unix time in ns at which all that was admitted will have drained, as a string of
-- digits. It is read as redis-cell reads it, which takes a `+` and zeros before it, and written as redis-cell writes it, so
-- that either goes on where the other has stopped. Redis itself expires it.
--
-- A double does not hold a unix time in ns, so each time is two: whole seconds, and the nanoseconds above them, 0 to
-- 999,999,999, of negative times too.
--
-- KEYS   none: the script finds by itself which keys it may not touch. Before a cluster whose nodes want keys declared, the
--        names
-- ARGV   for each run of items that ask the same: how many items, and what each asks, packed little-endian: number of
--        requests, of 32 bits, by how much each moves TAT, and how far that may be ahead: s and ns each, doubles;
--        then the names, if they are no KEYS, and how many these are
-- Reply  integers: for each item by how much TAT was ahead before it: s and ns; or what is wrong, of which nothing is
--        written, and -1: -1 if the key holds something else, -2 if this node does not serve it, -3 if Tollgate may not
--        touch it
-- Cost   1 call for each item, and 1 more if something is admitted; of what lives for less than a millisecond, 1 more for
--        the first, or for all of them, as the version of Redis has it

-- What only some items need. Lua makes a function anew in each run that comes by its definition, and each variable that one
-- captures costs a run as much again; so these are made when they are first needed, and nearly all items are decided below
-- without them.
local function define_seldom(now_s, now_ns, now_ms)
  local pcall, find, match, sub, format = redis.pcall, string.find, string.match, string.sub, string.format
  local call, floor = redis.call, math.floor
  local WRONG_TYPE, ELSEWHERE, FORBIDDEN, NS = -1, -2, -3, 1000000000

  -- What is wrong with the key of a call that answered this, if it is the key that is wrong. Any other error ends the script.
  local function fault_of(answer, ...)
    if type(answer) ~= 'table' or not answer.err then
      return nil
    elseif find(answer.err, 'to access a non local key', 1, true) then
      return ELSEWHERE
    elseif find(answer.err, 'WRONGTYPE', 1, true) then
      return WRONG_TYPE
    elseif find(answer.err, 'NOPERM', 1, true) or find(answer.err, 'user executing the script', 1, true) then
      return FORBIDDEN
    end
    -- Asking again raises the error, worded as this version of Redis does it.
    call(...)
  end

  -- The TAT that a value says, s and ns; nil if it is none, which is also what is no 64-bit number.
  local function read(value)
    local digits = match(value, '^%+?0*(%d*)$')
    if not digits or not match(value, '%d$') or #digits > 20 then
      return nil
    end
    local s, ns = sub(digits, 1, -10), sub(digits, -9)
    s, ns = s == '' and 0 or s + 0, ns == '' and 0 or ns + 0
    if s > 18446744073 or s == 18446744073 and ns > 709551615 then
      return nil
    end
    return s, ns
  end

  -- The value that says a TAT, which is no negative number and has 64 bits: what is beyond comes up at the other end.
  local function write(s, ns)
    if s >= 1 and s < 18446744073 then
      return format('%d%09d', s, ns)
    end
    local turn = (s < 0 and 1) or ((s > 18446744073 or s == 18446744073 and ns > 709551615) and -1) or 0
    s, ns = s + turn * 18446744073, ns + turn * 709551616
    local carry = floor(ns / NS)
    s, ns = s + carry, ns - carry * NS
    return s > 0 and format('%.0f%09.0f', s, ns) or format('%.0f', ns)
  end

  local function set(...)
    local answer = pcall('SET', ...)
    return answer.err and fault_of(answer, 'SET', ...)
  end

  -- Writes a TAT that is so far ahead of now. Returns what is wrong, if anything is.
  local function store(key, ahead_s, ahead_ns)
    local s, ns = now_s + ahead_s, now_ns + ahead_ns
    if ns >= NS then
      s, ns = s + 1, ns - NS
    end
    local value = write(s, ns)
    if ahead_s >= 0 then
      local life_ms = ahead_s * 1000 + floor(ahead_ns / 1000000)
      local fault = set(key, value, 'PXAT', format('%d', now_ms + life_ms))
      -- What ends in this millisecond is to live through it, which not every version of Redis lets it.
      if life_ms == 0 and not fault and not call('GET', key) then
        call('SET', key, value, 'PX', '1')
      end
      return fault
    end
    -- A refund beyond now. redis-cell fails to have it expire, or has it live for good, but for less than a millisecond.
    if ahead_s == -1 and ahead_ns > NS - 1000000 then
      return set(key, value, 'PXAT', format('%d', now_ms))
    end
    return set(key, value)
  end

  return { fault_of = fault_of, read = read, store = store }
end

local WRONG_TYPE, NS = -1, 1000000000
local call, pcall, floor, format = redis.call, redis.pcall, math.floor, string.format
local sub, find, unpack_some = string.sub, string.find, struct.unpack

local keys, last_arg = KEYS, #ARGV
if #keys == 0 then
  local count = tonumber(ARGV[last_arg])
  last_arg = last_arg - count - 1
  keys = { unpack(ARGV, last_arg + 1, last_arg + count) }
end

local now_s = floor(now_us / 1000000)
local now_ns = (now_us - now_s * 1000000) * 1000
local now_ms = floor(now_us / 1000)

-- What was last read of what is asked, and what was last printed: many items of a run ask the same, are of the same second,
-- or expire in the same millisecond, and a number that is printed costs as much as a third of a call.
local asked, requests, step_s, step_ns, most_s, most_ns, last_s, format_of_s, last_ms, text_of_ms
-- Whether this version of Redis has what ends in this millisecond live through it, which a run sees once, as time stands
-- still in it. Nil until it has.
local lives_through
local seldom
local reply, number = {}, 0
for arg = 1, last_arg, 2 do
  if ARGV[arg + 1] ~= asked then
    asked = ARGV[arg + 1]
    requests, step_s, step_ns, most_s, most_ns = unpack_some('<I4dddd', asked)
  end
  for _ = 1, ARGV[arg] do
    number = number + 1
    local key = keys[number]
    local value, ahead_s, ahead_ns, fault = pcall('GET', key), 0, 0, nil
    if type(value) == 'string' then
      local s, ns
      -- Nearly all are of this length: as `read` has it.
      if #value == 19 and not find(value, '%D') then
        s, ns = sub(value, 1, 10) + 0, sub(value, 11) + 0
      else
        seldom = seldom or define_seldom(now_s, now_ns, now_ms)
        s, ns = seldom.read(value)
      end
      if not s then
        fault = WRONG_TYPE
      elseif ns < now_ns then
        ahead_s, ahead_ns = s - now_s - 1, ns - now_ns + NS
      else
        ahead_s, ahead_ns = s - now_s, ns - now_ns
      end
    elseif value then
      seldom = seldom or define_seldom(now_s, now_ns, now_ms)
      fault = seldom.fault_of(value, 'GET', key)
    end
    if not fault then
      -- A TAT that is past is as good as now.
      local s, ns, is_moved = ahead_s, ahead_ns, false
      if s < 0 then
        s, ns = 0, 0
      end
      for _ = 1, requests do
        local next_s, next_ns = s + step_s, ns + step_ns
        if next_ns >= NS then
          next_s, next_ns = next_s + 1, next_ns - NS
        end
        if next_s > most_s or next_s == most_s and next_ns > most_ns then
          break
        end
        s, ns, is_moved = next_s, next_ns, true
      end
      -- As `store` has it, of what is no refund and not as far ahead as what it writes otherwise: a few centuries.
      if is_moved and s >= 0 and s < 10000000000 then
        local tat_s, tat_ns = now_s + s, now_ns + ns
        if tat_ns >= NS then
          tat_s, tat_ns = tat_s + 1, tat_ns - NS
        end
        if tat_s ~= last_s then
          last_s, format_of_s = tat_s, format('%d%%09d', tat_s)
        end
        local text, life_ms = format(format_of_s, tat_ns), s * 1000 + floor(ns / 1000000)
        if life_ms ~= last_ms then
          last_ms, text_of_ms = life_ms, format('%d', now_ms + life_ms)
        end
        local answer = pcall('SET', key, text, 'PXAT', text_of_ms)
        if answer.err then
          seldom = seldom or define_seldom(now_s, now_ns, now_ms)
          fault = seldom.fault_of(answer, 'SET', key, text, 'PXAT', text_of_ms)
        elseif life_ms == 0 then
          -- What ends in this millisecond is to live through it, which not every version of Redis lets it.
          if lives_through == nil then
            lives_through = call('GET', key) and true
          end
          if not lives_through then
            call('SET', key, text, 'PX', '1')
          end
        end
      elseif is_moved then
        seldom = seldom or define_seldom(now_s, now_ns, now_ms)
        fault = seldom.store(key, s, ns)
      end
    end
    reply[2 * number - 1], reply[2 * number] = fault or ahead_s, fault and -1 or ahead_ns
  end
end

return reply
