-- Lines that a job's handler logged.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 after this line, 4 lines at most
-- Result      records, oldest first: number, attempt, size, JSON, with a space between
-- Cost        6 commands

local id, after = ARGV[2], tonumber(ARGV[3])
if lookup(id)[1] ~= 2 then return {} end
local logs = ns .. 'logs:' .. id
local kept = call('LLEN', logs)
local lines = whole(call('HGET', ns .. 'job:' .. id, 'll')) or kept
-- Numbers have no gaps: what is not kept any more stood in front.
local from = math.max(after - (lines - kept), 0)
return call('LRANGE', logs, from, from + tonumber(ARGV[4]) - 1)
