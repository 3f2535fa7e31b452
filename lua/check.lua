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

-- Writes what changes in the item's i-th log. Returns its total then.
local function write(key, item, i, weight, member)
  if gone[i] > 0 then
    call('ZREMRANGEBYRANK', key, FIRST, FIRST + gone[i] - 1)
  end
  if weight > 0 and add_entry(key, heads[i], item[i], used[i] + weight, now_score, member) then
    return used[i] + weight
  end
  if weight > 0 or gone[i] > 0 then
    call('ZADD', key, used[i], 't')
  end
  return used[i]
end

local at = 2
for number = 2, #ARGV do
  local item = read_item(ARGV[number])
  local admitted = measure(item, at)
  if admitted then
    local weight = admitted * item.cost
    local member = number == 2 and ARGV[1] or ARGV[1] .. '.' .. number - 1
    if weight ~= 1 then
      member = member .. ':' .. weight
    end
    for i = 1, #item do
      local key = KEYS[at + i - 1]
      append_answer(key, item, i, admitted, write(key, item, i, weight, member), FIRST)
    end
  else
    append_wrong_type(item)
  end
  at = at + #item
end

return reply
