-- Decides what nearly all items are: one check of one limit, which is admitted without more ado. For a log: of weight 1, and
-- the log holds no t. For GCRA and fixed windows that are no calendar's: the state lives long enough, and was written under
-- the same limit, or in the same period. In all cases nothing
-- but `used` is to be replied. All others are left to check.lua, whose functions are not even made in a run that has no
-- such item: `define_general` makes them. KEYS, ARGV and reply are those of check.lua.
--
-- What check.lua says of these items is the same, with the same calls in the same order; only that it takes twice as many
-- of Lua's instructions, as it is prepared for everything else too. So nothing here is a function, nothing is kept in
-- tables, and what is asked is known by its length. tests/it/plain.rs holds both to the same.

local call, pcall, unpack_some, pack, sub = redis.call, redis.pcall, struct.unpack, struct.pack, string.sub
-- The lengths of what is asked of one log, of GCRA alone and of one fixed window; and the flags and the kinds of these.
local LOG_SIZE, GCRA_SIZE, FIXED_SIZE, OTHER_FLAGS, GCRA_KIND, FIXED_KIND = 21, 48, 32, 8, 1, 2
-- The size of a state with so many ids that the oldest goes, or has room for one more; and what it is read by: the ids that
-- stay, at last. Nearly all are of such a size, and that is sooner than to read those for themselves.
local LONG_SIZE, LONG_STATE = IDS_END, STATE .. 'c' .. IDS_END - STATE_SIZE
-- What is written of a state that a check was admitted by: what stands behind what stays, and the newest id, of which the
-- item's number and how many were admitted, 1, are one number.
local COUNTED_GCRA, COUNTED_FIXED, ONE_ADMITTED = '<dI4c8I4c0', '<I4c8I4c0', 65536

-- Entries that have expired and may be forgotten here, beside those that check.lua may forget (decide.lua).
local forgettable = 500

-- What the ids of items end in, from the second to the 62nd.
local ENDS = '.1.2.3.4.5.6.7.8.9.A.B.C.D.E.F.G.H.I.J.K.L.M.N.O.P.Q.R.S.T.U.V.W.X.Y.Z.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z'
local check_items, now_score, tag
-- As long as it will be at least, as a table that grows is made anew again and again.
local reply, reply_size = { now_us, unpack(keys) }, #keys + 1
local number, at = 0, 0
for arg = 3, last_arg, 2 do
  local packed = ARGV[arg + 1]
  local size, count, is_plain = #packed, ARGV[arg] + 0, false
  if size == LOG_SIZE then
    local flags, checks, cost, limit, ms = unpack_some('<BI4I4I4d', packed)
    is_plain = flags <= 1 and checks == 1 and cost == 1
    if is_plain then
      local lasts, expired_score = flags == 1 and now_us <= ARGV[2] + 0, score_of(now_us - ms * 1000)
      now_score = now_score or score_of(now_us)
      for place = at + 1, at + count do
        local key, is_admitted = keys[place], false
        local used = pcall('ZCARD', key)
        -- Of what is no log both are errors.
        local oldest, t = used == 0 and 0 or pcall('ZCOUNT', key, expired_score, '+inf'), nil
        if oldest == 0 then
          is_admitted = used < limit
        elseif type(oldest) == 'number' and oldest < used and oldest <= forgettable then
          t = call('ZSCORE', key, 't')
          if not t and used - oldest < limit then
            is_admitted, used, forgettable = true, used - oldest, forgettable - oldest
            -- A number is printed for each call at the cost of a third of it.
            local rank = oldest == 1 and '-1' or -oldest
            call('ZREMRANGEBYRANK', key, rank, '-1')
          end
        end
        if is_admitted then
          -- What id_of says, of most items without a call.
          local id = number > 0 and number < 62 and batch_id .. sub(ENDS, 2 * number - 1, 2 * number) or id_of(number)
          call('ZADD', key, now_score, id)
          reply[place + 1] = used
          -- A log that was empty begins anew, with no end.
          if not lasts or used == 0 then
            keep_alive(key, ms, used == 0)
          end
        else
          check_items = check_items or define_general(now_us, keys)
          reply_size = check_items(packed, 1, number, place - 1, reply, reply_size, used, oldest, t)
        end
        number = number + 1
      end
      at = at + count
    end
  elseif size == GCRA_SIZE then
    local flags, checks, _, first, kind, longest_us, full_us, full_part, step_us, step_part, of =
      unpack_some('<BI4I4I2BddI4dI4I4', packed)
    is_plain = flags == OTHER_FLAGS and kind == GCRA_KIND and checks == 1
    if is_plain then
      tag = tag or tag_of(batch_id)
      local latest_us, spare_us = now_us + longest_us, full_us / 8
      for place = at + 1, at + count do
        local key, is_admitted = keys[place], false
        local value = pcall('GET', key)
        if value and #value >= STATE_SIZE then
          local is_long = #value >= LONG_SIZE
          local until_s, last_of, tat_us, part, ids = unpack_some(is_long and LONG_STATE or STATE, value)
          if last_of == of and part < of and tat_us >= 0 and tat_us <= latest_us and tat_us % 1 == 0 then
            local us = tat_us - now_us
            if us < 0 then
              us, part = 0, 0
            end
            local then_us, then_part = us + step_us, part + step_part
            if then_part >= of then
              then_us, then_part = then_us + 1, then_part - of
            end
            tat_us = now_us + then_us
            is_admitted = (then_us < full_us or then_us == full_us and then_part <= full_part)
              and until_s * 1000000 >= tat_us + spare_us
            if is_admitted then
              ids = is_long and ids or sub(value, STATE_SIZE + 1)
              call('SETRANGE', key, '8', pack(COUNTED_GCRA, tat_us, then_part, tag, first + number + ONE_ADMITTED, ids))
              reply[place + 1] = us
              if part > 0 then
                local n = reply_size
                reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = place - 1, part, 0, 0
                reply_size = n + 4
              end
            end
          end
        end
        if not is_admitted then
          check_items = check_items or define_general(now_us, keys)
          reply_size = check_items(packed, 1, number, place - 1, reply, reply_size)
        end
        number = number + 1
      end
      at = at + count
    end
  elseif size == FIXED_SIZE then
    local flags, checks, cost, first, kind, period_us, shift_us, limit = unpack_some('<BI4I4I2BddI4', packed)
    is_plain = flags == OTHER_FLAGS and kind == FIXED_KIND and checks == 1
    if is_plain then
      tag = tag or tag_of(batch_id)
      local start_us = now_us - (now_us + shift_us) % period_us
      local least_until_us = start_us + period_us + period_us / 8
      for place = at + 1, at + count do
        local key, is_admitted = keys[place], false
        local value = pcall('GET', key)
        if value and #value >= STATE_SIZE then
          local is_long = #value >= LONG_SIZE
          local until_s, zero, began_us, used, ids = unpack_some(is_long and LONG_STATE or STATE, value)
          is_admitted = began_us == start_us and zero == 0 and used + cost <= limit
            and until_s * 1000000 >= least_until_us
          if is_admitted then
            ids = is_long and ids or sub(value, STATE_SIZE + 1)
            call('SETRANGE', key, '16', pack(COUNTED_FIXED, used + cost, tag, first + number + ONE_ADMITTED, ids))
            reply[place + 1] = used
          end
        end
        if not is_admitted then
          check_items = check_items or define_general(now_us, keys)
          reply_size = check_items(packed, 1, number, place - 1, reply, reply_size)
        end
        number = number + 1
      end
      at = at + count
    end
  end
  if not is_plain then
    check_items = check_items or define_general(now_us, keys)
    reply_size, at = check_items(packed, count, number, at, reply, reply_size)
    number = number + count
  end
end

return reply
