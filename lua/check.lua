-- Decides a batch of items and counts what it admits. An item is a number of identical checks (the same key, windows
-- and cost), decided one after another in one step: so many of them are admitted as fit every window.
--
-- KEYS   [1] the registry; then the logs, in the order of the items and, in each, of its windows
-- ARGV   [1] id of the batch; then for each item: number of checks, cost of one, number of windows, and for each
--        window its limit and its length in ms
-- Reply  integers: now_us; then for each item and window
--          used         weight in the window before the item; -1 if one of the item's keys holds no log, in which
--                       case nothing of the item is written
--          fits_in_us   if the window denies one of the item's checks: until so many of the oldest entries have
--                       expired that one such check fits. Too short when that takes more than MAX_WALKED entries;
--                       0 when those are expired and only await pruning. Otherwise 0
--          empty_in_us  if a check was denied: until the newest entry expires, those just made included; 0 for an
--                       empty window. If none was, 0 stands for the window's length: the entry just made is the
--                       newest. Unless the clock stepped back, that is, which shows when the oldest entry is in the
--                       future, or an x later than any made now: a step back of less than a quarter of the window can
--                       go unseen, and with it so much of empty_in_us
--          covered      with fits_in_us: the weight that will have expired by then at least. Whatever else needs no
--                       more than this and no less than the check did fits at the same time. Otherwise 0
-- Cost   for each window 2 calls when all are admitted, 2 when all are denied, 2 more when entries have expired; 2
--        more for about one in a quarter window, and then 2 or 3 for the registry once a batch. Expired entries
--        beyond MAX_PRUNED go on counting. The longest way, that of a denied request that needs many weighted
--        entries to expire, looks at MAX_WALKED of them.
--
-- A batch that runs again, because its answer was lost, writes the same members and so counts once, although it is
-- decided anew. An item of which then another number is admitted is counted twice.

local reply = { now_us }
local key_at, arg_at = 2, 2
local item = 1
-- By the item's windows.
local heads, limits, windows_ms, pruned, used = {}, {}, {}, {}, {}

while arg_at <= #ARGV do
  local count, cost, windows = tonumber(ARGV[arg_at]), tonumber(ARGV[arg_at + 1]), tonumber(ARGV[arg_at + 2])
  arg_at = arg_at + 3
  local are_logs = true
  for i = 1, windows do
    heads[i] = read_head(KEYS[key_at + i - 1])
    are_logs = are_logs and heads[i]
  end

  if are_logs then
    local admitted = count
    for i = 1, windows do
      local key, head = KEYS[key_at + i - 1], heads[i]
      limits[i], windows_ms[i] = tonumber(ARGV[arg_at]), tonumber(ARGV[arg_at + 1])
      arg_at = arg_at + 2
      used[i], pruned[i] = tonumber(head[2] or 0), 0
      if head[6] and head[6] + windows_ms[i] * 1000 <= now_us then
        local weight
        pruned[i], weight = expired(key, head[6], windows_ms[i] * 1000)
        used[i] = used[i] - weight
        call('ZREMRANGEBYRANK', key, FIRST, FIRST + pruned[i] - 1)
      end
      admitted = math.min(admitted, math.floor((limits[i] - used[i]) / cost))
    end
    admitted = math.max(admitted, 0)

    local weight = admitted * cost
    local id = item == 1 and ARGV[1] or ARGV[1] .. '.' .. item
    local member = weight == 1 and id or id .. ':' .. weight
    for i = 1, windows do
      local key, head, window_us = KEYS[key_at + i - 1], heads[i], windows_ms[i] * 1000
      local total = used[i] + weight
      if admitted > 0 then
        if not write_entry(key, head, windows_ms[i], total, now_score, member) then
          total = used[i]
          call('ZADD', key, total, 't')
        end
      elseif pruned[i] > 0 then
        call('ZADD', key, total, 't')
      end
      local fits_in_us, empty_in_us, covered = 0, 0, 0
      if admitted < count then
        if total > 0 then
          empty_in_us = math.max(0, newest_us(key) + window_us - now_us)
        end
        local needed = total + cost - limits[i]
        if needed > 0 then
          local last_us
          last_us, covered = tonumber(head[6]), 0
          if pruned[i] == 0 and last_us and (admitted == 0 or last_us <= now_us) then
            covered = weight_of(head[5])
          end
          if covered < needed then
            last_us, covered = walk(key, FIRST, total, needed)
          end
          fits_in_us = math.max(0, last_us + window_us - now_us)
        end
      elseif head[6] and (tonumber(head[6]) > now_us or head[4] - windows_ms[i] * 1.25 > now_ms + 1) then
        empty_in_us = math.max(0, newest_us(key) + window_us - now_us)
      end
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = used[i], fits_in_us, empty_in_us, covered
    end
  else
    arg_at = arg_at + 2 * windows
    for _ = 1, windows do
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = -1, 0, 0, 0
    end
  end
  key_at = key_at + windows
  item = item + 1
end

return reply
