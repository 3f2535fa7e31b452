-- Says of a batch of items what check.lua would, and writes nothing. Each item is one check.
--
-- KEYS, ARGV and reply are those of check.lua; the number of checks is 1 and the id of the batch is not used.
-- Cost   for each window 1 call if it admits, 2 if it denies, 1 more when entries have expired.

