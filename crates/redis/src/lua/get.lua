-- A job as it is now.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id
-- Result      a lookup
-- Cost        6 commands

return lookup(ARGV[2])
