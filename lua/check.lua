-- Decides a batch of items and counts what it admits. An item is a number of identical checks (of the same key, windows
-- and cost), decided one after another in one step: as many of them are admitted as fit into every window.
--
-- KEYS   [1] the registry; then the logs, in the order of the items and, in each, of its windows
-- ARGV   [1] id of the batch, with neither ':' nor '.'; then one text for each item: "<count> <cost>", and for each
--        window " <limit> <window_ms>"
-- Reply  integers: now_us, then for each item and window
--          used         weight in the window before the item; -1 for all windows of an item if one of its keys holds
--                       no sorted set, in which case nothing of the item is written
--          fits_in_us   if the window denies one of the checks: until so many of the oldest entries have expired,
--                       those just made included, that one such check fits; 0 if those have expired and only await
--                       being forgotten; too short if more than MAX_WALKED entries are needed. Else 0
--          empty_in_us  if a check was denied: until the newest entry expires, those just made included; 0 if there is
--                       none. If all were admitted: 0, for the newest is the entry just made, unless x or the oldest
--                       entry shows that the clock has stepped back. A step of less than a quarter of the window may
--                       go unseen, and this is then too short by as much
--          covered      with fits_in_us: weight that will have expired by then, or somewhat less. Whatever fits once
--                       this much has expired, and does not fit before the check does, fits at the same time. Else 0
-- Cost   for each window 2 calls if all are admitted or all denied, 4 if both occur; 2 or 3 more if entries have
--        expired; 1 more if an admission has to extend the TTL, and then 2 or 3 for the registry, once a run and
--        length. A denied check that needs more than the oldest entry to expire costs 2 more if all entries weigh 1,
--        else up to 11.
--
-- The item's number n is part of its entry's id, `<batch id>` for the first and `<batch id>.<n>` for the others. So
-- a batch that runs again because its answer was lost writes the same members, and they count once. It is decided
-- anew, though: an item of which another number is admitted than before is counted twice.

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
