-- Returns one job.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id
-- Result      see `lookup`
-- Cost        6 commands

return lookup(ARGV[2])
