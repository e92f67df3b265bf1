-- Returns the payload of a job that has not completed.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id
-- Result      {0} no such job, or it has completed; {1, payload}
-- Cost        2 commands

local id = ARGV[2]
local f = read(id, 's', 'en', 'w')
local ended, kept = whole(f[2]), f[2] and retention(f[3])
local expired = ended and kept and ended + kept <= now
if not f[1] or f[1] == '3' or expired then return {0} end
return {1, call('GET', ns .. 'body:' .. id)}
