-- How the states are read and written that are one number (state.lua). What check, peek, record, reset and inspect share.

local counters
local function define_counters()
  local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
  local pack, unpack_state, sub = struct.pack, struct.unpack, string.sub
  local DAY_US = 86400000000

  -- How many checks of a group a state knows to have counted; and the ids of all others.
  local function recall(value, tag, number)
    local id, known, others = pack('<c8I2', tag, number), 0, {}
    for at = STATE_SIZE + 1, #value - ID_SIZE + 1, ID_SIZE do
      if sub(value, at, at + ID_SIZE - 3) == id then
        known = unpack_state('<I2', value, at + ID_SIZE - 2)
      else
        others[#others + 1] = sub(value, at, at + ID_SIZE - 1)
      end
    end
    return known, table.concat(others, '', 1, min(#others, MOST_IDS - 1))
  end

  -- The ids of a state, if any, without the oldest of MOST_IDS, for there to be room for one more.
  local function ids_of(value)
    return value and sub(value, STATE_SIZE + 1, IDS_END) or ''
  end

  -- A number of months since the year 0, as days since 1970.
  local function days_before(month)
    -- Years begin in March, so that the day that comes and goes is their last.
    local from_march = month - 2
    local year, month_of_year = floor(from_march / 12), from_march % 12
    local days = floor((153 * month_of_year + 2) / 5)
    return year * 365 + floor(year / 4) - floor(year / 100) + floor(year / 400) + days - 719468
  end

  -- When the period began, and when it ends, that a time is in.
  local function period_at(limit, time_us)
    local shifted_us = time_us + limit.shift_us
    if not limit.months then
      local start_us = time_us - shifted_us % limit.period_us
      return start_us, start_us + limit.period_us
    end
    local days = floor(shifted_us / DAY_US)
    -- By the average length of a month, which the months' beginnings are less than one away from: this is not too early,
    -- and too late by two at most.
    local month = floor((days + 719528) / 30.436875) + 1
    while days_before(month) > days do
      month = month - 1
    end
    month = month - month % limit.months
    return days_before(month) * DAY_US - limit.shift_us, days_before(month + limit.months) * DAY_US - limit.shift_us
  end

  -- What a state of GCRA says: how many whole microseconds it is ahead of a time, how many parts of one in `of`, and until
  -- when it lives. Nil if it is no such state.
  local function read_gcra(value, of, time_us)
    if #value < STATE_SIZE then
      return nil
    end
    local until_s, last_of, tat_us, part = unpack_state(STATE, value)
    local ahead_us = tat_us - time_us
    if not (tat_us >= 0 and tat_us <= 1e16 and tat_us % 1 == 0 and part < last_of) then
      return nil
    elseif ahead_us < 0 then
      return 0, 0, until_s
    elseif part == 0 or last_of == of then
      return ahead_us, part, until_s
    end
    part = floor(part * of / last_of) + 2
    return part < of and ahead_us or ahead_us + 1, part < of and part or 0, until_s
  end

  -- What a state of a fixed window says: what is counted for the period that it holds for now, and when that began and
  -- ends. If the clock stepped back that is a later one than the current, unless it begins more than its length from now:
  -- then what was counted for it counts for the current, and is to be written so. Nil if it is no such state.
  local function read_fixed(value, limit)
    local start_us, end_us = limit.start_us, limit.end_us
    if #value < STATE_SIZE then
      return nil
    end
    local _, zero, began_us, used = unpack_state(STATE, value)
    if not (began_us >= -1e16 and began_us <= 1e16 and began_us % 1 == 0 and zero == 0) then
      return nil
    elseif began_us == start_us then
      return used, start_us, end_us, false
    elseif began_us < start_us then
      return 0, start_us, end_us, false
    elseif began_us - now_us > end_us - start_us then
      return used, start_us, end_us, true
    end
    return used, period_at(limit, began_us)
  end

  -- A counter as the proxy describes it, from a place of a packed string on; and where that ends. Where that may be the
  -- length of a log's window instead, it follows a '=', which no number begins with.
  --   1  GCRA: the furthest that a state may be ahead, in us
  --   2  fixed: length of its periods, and by how much its clock is ahead of UTC, in us
  --   3  fixed by the calendar: months of its periods, and the same
  local function read_counter(packed, at)
    local kind
    kind, at = unpack_state('<B', packed, at)
    local counter = { kind = kind }
    if kind == 1 then
      counter.longest_us, at = unpack_state('<d', packed, at)
      return counter, at
    end
    local length
    length, counter.shift_us, at = unpack_state('<dd', packed, at)
    counter[kind == 3 and 'months' or 'period_us'] = length
    counter.start_us, counter.end_us = period_at(counter, now_us)
    return counter, at
  end

  -- Until when a state lives.
  local function until_of(value)
    return (unpack_state('<I4', value))
  end

  -- Unix times in seconds, as text.
  local texts = {}

  -- Writes a state over another, which lives until `until_s`, or in place of none. It counts until a time and for so long
  -- at most, and lives an eighth of that longer at least, so that it is not lost if the clock steps back.
  local function write(key, until_s, number, amount, of, tag, item, admitted, ids, end_us, length_us)
    if until_s and until_s * 1000000 >= end_us + length_us / 8 then
      call('SETRANGE', key, '0', pack(COUNTED, until_s, of, number, amount, tag, item, admitted, ids))
      return
    end
    until_s = ceil((end_us + length_us / 4) / 1000000)
    local text = texts[until_s] or string.format('%d', until_s)
    texts[until_s] = text
    call('SET', key, pack(COUNTED, until_s, of, number, amount, tag, item, admitted, ids), 'EXAT', text)
  end

  return {
    recall = recall,
    ids_of = ids_of,
    period_at = period_at,
    read_gcra = read_gcra,
    read_fixed = read_fixed,
    read_counter = read_counter,
    write = write,
    until_of = until_of,
  }
end
