-- Returns lines that a job's handler logged.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 the number of the last line already read, 4 at most this many lines
-- Result      records, oldest first: number, attempt, size and JSON between spaces
-- Cost        6 commands

local id, after = ARGV[2], tonumber(ARGV[3])
if lookup(id)[1] ~= 2 then return {} end
local logs = ns .. 'logs:' .. id
local kept = call('LLEN', logs)
local lines = whole(call('HGET', ns .. 'job:' .. id, 'll')) or kept
-- Line numbers have no gaps, and old lines are dropped from the front.
local from = math.max(after - (lines - kept), 0)
return call('LRANGE', logs, from, from + tonumber(ARGV[4]) - 1)
