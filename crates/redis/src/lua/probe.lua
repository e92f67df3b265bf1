-- Checks that the server accepts writes. Leaves nothing behind.
--
-- Keys        1 the namespace
-- Arguments   1 now
-- Result      1
-- Cost        2 commands

call('SET', ns .. 'probe', 1)
return call('DEL', ns .. 'probe')
