-- Decides items of which a limit is counted otherwise than by a log; the others, whose code is left alone by this, are the
-- business of decide.lua. For check and peek.
--
-- What these items' questions hold beside flags, checks and cost, packed little-endian: the item's number, of 16 bits, that
-- of the first item of its batch as it first ran; then for each limit its kind, a byte, and
--   0  log: the limit, of 32 bits, and the window's length in ms, a double
--   1  GCRA: how far a state may be ahead at most under any limit and when it is full, and by how much a check moves it,
--      each of them in us, and but for the first the rest of a us of 32 bits, in parts of which a us has the last 32 bits
--   2  fixed: the length of its periods and the shift of its clock, in us, and the limit
--   3  the same by the calendar, the length in months
--
-- Reply  for each limit that is no log
--          used   GCRA: by how much the state is ahead, in whole us; fixed: the weight counted
--        and behind all of these, among what the logs say of denials, where they are not 0: the place, and
--          GCRA   the parts of a us by which the state is ahead beyond that; 0; 0
--          fixed  in how many us the period ends that counts, if that is not the current one; 0; 0
-- Cost   1 call for each limit that is no log, and 1 more if something is admitted; of GCRA alone 1 more if the state is
--        new, denies, was written under another limit, or needs a new TTL

function define_items()
  local counters = define_counters()
  seldom = seldom or define_seldom()
  local tag = tag_of(ARGV[1])
  local LOG, GCRA = 0, 1
  local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
  local unpack_some, pack, sub = struct.unpack, struct.pack, string.sub
  local read_gcra, ids_of, write = counters.read_gcra, counters.ids_of, counters.write

  -- Reads what is asked of an item's limits: adds them to the question.
  local function read_limits(question, packed, at)
    question.first, at = unpack_some('<I2', packed, at)
    while at <= #packed do
      local limit
      if unpack_some('<B', packed, at) == LOG then
        local max_weight, ms
        max_weight, ms, at = unpack_some('<I4d', packed, at + 1)
        local window = new_window(ms, max_weight)
        local alone = { checks = question.checks, cost = question.cost, lasts = question.lasts, window }
        limit = { kind = LOG, window = window, alone = alone }
        question.has_log = true
      else
        limit, at = counters.read_counter(packed, at)
        if limit.kind == GCRA then
          limit.full_us, limit.full_part, limit.step_us, limit.step_part, limit.of, at =
            unpack_some('<dI4dI4I4', packed, at)
        else
          limit.max, at = unpack_some('<I4', packed, at)
        end
      end
      question[#question + 1] = limit
    end
  end

  -- Reads a state of GCRA. Returns how many of `room` checks it has room for; or nil, and what is wrong with it.
  local function measure_gcra(limit, key, room)
    local value, us, part, until_s = pcall('GET', key), 0, 0, nil
    if value then
      us, part, until_s = read_gcra(value, limit.of, now_us)
      if not us then
        return nil, fault_of(key, value) or WRONG_TYPE
      end
      limit.is_ahead = us > limit.longest_us
      if limit.is_ahead then
        us, part = limit.full_us, limit.full_part
      end
    end
    limit.value, limit.us, limit.part, limit.until_s = value, us, part, until_s
    local free_us, free_part, of = limit.full_us - us, limit.full_part - part, limit.of
    local step_us, step_part = limit.step_us, limit.step_part
    if (room * step_us - free_us) * of <= free_part - room * step_part then
      return room
    elseif room == 1 then
      return 0
    end
    -- In doubles this is off by one at most.
    local fit = floor((free_us * of + free_part) / (step_us * of + step_part)) + 1
    fit = max(0, min(room - 1, fit))
    while fit > 0 and (fit * step_us - free_us) * of > free_part - fit * step_part do
      fit = fit - 1
    end
    return fit
  end

  -- The same of a fixed window.
  local function measure_fixed(limit, key, room, cost)
    local value = pcall('GET', key)
    limit.value, limit.used, limit.from_us, limit.until_us, limit.is_ahead =
      value, 0, limit.start_us, limit.end_us, false
    if value then
      limit.used, limit.from_us, limit.until_us, limit.is_ahead = counters.read_fixed(value, limit)
      if not limit.used then
        return nil, fault_of(key, value) or WRONG_TYPE
      end
    end
    return max(0, min(room, floor((limit.max - limit.used) / cost)))
  end

  -- How many of an item's checks its limits, whose states follow keys[at], have room for; or nil, and what is wrong.
  local function measure_item(question, at)
    local room, fit, fault = question.checks, nil, nil
    for i = 1, #question do
      local limit, key = question[i], keys[at + i]
      if limit.kind == GCRA then
        limit.is_ahead = false
        fit, fault = measure_gcra(limit, key, question.checks)
      elseif limit.kind == LOG then
        fit, fault = measure(limit.alone, at + i - 1)
      else
        fit, fault = measure_fixed(limit, key, question.checks, question.cost)
      end
      if not fit then
        return nil, fault
      end
      room = min(room, fit)
    end
    return room
  end

  -- Whether a limit has room for so many checks.
  local function has_room(limit, checks, cost)
    if limit.kind ~= GCRA then
      local log_or_fixed = limit.window or limit
      return checks * cost <= (log_or_fixed.limit or log_or_fixed.max) - log_or_fixed.used
    end
    local free_us, free_part = limit.full_us - limit.us, limit.full_part - limit.part
    return (checks * limit.step_us - free_us) * limit.of <= free_part - checks * limit.step_part
  end

  -- By how much a state of GCRA is ahead without so many checks; not at all if that is less than nothing.
  local function without(limit, us, part, checks)
    part = part - checks * limit.step_part
    us, part = us - checks * limit.step_us + floor(part / limit.of), part % limit.of
    return max(0, us), us < 0 and 0 or part
  end

  -- Has a limit have room for so many checks, or for no more than that if it is `exactly` so many.
  local function make_room(limit, checks, cost, exactly)
    if limit.kind == GCRA then
      local us, part = without(limit, limit.full_us, limit.full_part, checks)
      if exactly or limit.us > us or limit.us == us and limit.part > part then
        limit.us, limit.part = us, part
      end
    else
      local log_or_fixed = limit.window or limit
      local most = (log_or_fixed.limit or log_or_fixed.max) - checks * cost
      log_or_fixed.used = max(0, exactly and most or min(log_or_fixed.used, most))
    end
  end

  -- How many checks of an item were admitted when its batch ran before. If any were, what its limits say is made so that
  -- as many are admitted as then: where others were denied, and none of the limits denies them now, by the one that has
  -- least room.
  local function recall(question, at, id, number)
    local cost, checks, known = question.cost, question.checks, 0
    for i = 1, #question do
      local limit = question[i]
      local of_state = 0
      if limit.kind == LOG then
        of_state = counted(keys[at + i], id, cost, checks) / cost
      elseif limit.value then
        of_state = counters.recall(limit.value, tag, number)
      end
      known = max(known, of_state)
    end
    local tightest, least_room, is_denied = nil, math.huge, known == checks
    for i = 1, known > 0 and #question or 0 do
      local limit = question[i]
      local room
      if limit.kind == GCRA then
        limit.us, limit.part = without(limit, limit.us, limit.part, known)
        make_room(limit, known, cost, false)
        room = (limit.full_us - limit.us) / (limit.step_us + limit.step_part / limit.of)
      else
        local log_or_fixed = limit.window or limit
        log_or_fixed.used = max(0, log_or_fixed.used - known * cost)
        make_room(limit, known, cost, false)
        room = ((log_or_fixed.limit or log_or_fixed.max) - log_or_fixed.used) / cost
      end
      is_denied = is_denied or not has_room(limit, known + 1, cost)
      if room < least_room then
        tightest, least_room = limit, room
      end
    end
    if tightest and not is_denied then
      make_room(tightest, known, cost, true)
    end
    return known
  end

  -- Counts so many checks of an item in a state of GCRA.
  local function count_gcra(limit, key, admitted, number)
    local us, part, of = limit.us + admitted * limit.step_us, limit.part + admitted * limit.step_part, limit.of
    if part >= of then
      local carry = floor(part / of)
      us, part = us + carry, part - carry * of
    end
    local tat_us = now_us + us
    write(key, limit.until_s, tat_us, part, of, tag, number, admitted, ids_of(limit.value), tat_us, limit.full_us)
  end

  -- The same in one of a fixed window.
  local function count_fixed(limit, key, weight, admitted, number)
    local value, from_us, until_us = limit.value, limit.from_us, limit.until_us
    local until_s = value and counters.until_of(value)
    local used, length_us = limit.used + weight, until_us - from_us
    write(key, until_s, from_us, used, 0, tag, number, admitted, ids_of(value), until_us, length_us)
  end

  -- Counts so many checks of an item in all its states; none if it returns what is wrong.
  local function count_item(question, at, admitted, number, id, forget_expired)
    local weight = admitted * question.cost
    local member, score = id and member_of(id, weight), id and score_of(now_us)
    for i = 1, id and #question or 0 do
      -- See check.lua.
      local window, key = question[i].window, keys[at + i]
      if window and window.oldest ~= 0 and window.over then
        window.oldest = 0
        call('UNLINK', key)
        local fault = fault_of(key, pcall('ZCARD', key))
        if fault then
          return fault
        end
      end
    end
    for i = 1, #question do
      local limit, key = question[i], keys[at + i]
      local window = limit.window
      if limit.kind == GCRA then
        count_gcra(limit, key, admitted, number)
      elseif not window then
        count_fixed(limit, key, weight, admitted, number)
      else
        local excess = window.oldest ~= 0 and forget_expired(key, window)
        limit.has_t = add_entry(key, excess, weight, score, member) > 1 or excess
        if not question.lasts or window.used == 0 then
          keep_alive(key, window.ms, window.used == 0)
        end
      end
    end
  end

  -- Says how an item's limits stood before `admitted` of its checks were counted, which a peek leaves at none. Whether that
  -- was now. A state that is further ahead than any can be, as the clock stepped back, is written as a full one if it
  -- `may_write`.
  local function reply_item(question, at, admitted, is_counted_now, may_write)
    for i = 1, #question do
      local place, limit = at + i, question[i]
      local window = limit.window
      if window then
        reply[place + 1] = window.used
        if admitted < question.checks or question.is_full then
          local kept, has_t = 0, limit.has_t
          if window.oldest ~= 0 then
            kept = is_counted_now and window.left or window.gone + window.left
          end
          if not is_counted_now then
            has_t = window.oldest ~= 0 and window.excess
          end
          local total = window.used + (may_write and admitted * question.cost or 0)
          if admitted < question.checks then
            seldom.append_denial(place, window, question.cost, total, kept, has_t, may_write)
          end
          if question.is_full then
            seldom.append_next(place, window, total, kept, has_t)
          end
        end
      elseif limit.kind == GCRA then
        reply[place + 1] = limit.us
        if limit.part > 0 then
          append(place - 1, limit.part, 0, 0)
        end
        if limit.is_ahead and may_write and admitted == 0 then
          count_gcra(limit, keys[place], 0, 0)
        end
      else
        reply[place + 1] = limit.used
        if limit.until_us ~= limit.end_us then
          append(place - 1, limit.until_us - now_us, 0, 0)
        end
        if limit.is_ahead and may_write and admitted == 0 then
          count_fixed(limit, keys[place], 0, 0, 0)
        end
      end
    end
  end

  -- Says what is wrong with an item.
  local function refuse_item(question, at, fault)
    for i = 1, #question do
      reply[at + i + 1] = fault
    end
  end

  return {
    read_limits = read_limits,
    measure_item = measure_item,
    recall = recall,
    count_item = count_item,
    reply_item = reply_item,
    refuse_item = refuse_item,
  }
end
