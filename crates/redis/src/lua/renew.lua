-- The heartbeat of a worker, and of its leases.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 worker, 3 its record, 4 how long it counts as alive (0: it leaves), 5 lease, then id and token of each
-- Result      for each lease 0 held, 1 held and asked to cancel, 2 lost
-- Cost        O(log n) and 4 commands, one more for each lease

local worker, until_dead, lease = ARGV[2], now + tonumber(ARGV[4]), tonumber(ARGV[5])
if until_dead > now then
  shared('ZADD', 'heartbeats', until_dead, worker)
  shared('HSET', 'workers', worker, string.format('%.0f %s', now, ARGV[3]))
end
local dead = shared('ZRANGE', 'heartbeats', '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)
if until_dead == now then dead[#dead + 1] = worker end
if dead[1] then
  shared('ZREM', 'heartbeats', unpack(dead))
  shared('HDEL', 'workers', unpack(dead))
end

local answers, held, until_lost = {}, {}, text(now + lease)
for at = 6, #ARGV, 2 do
  local id = ARGV[at]
  local f = read(id, 's', 'tk', 'cr')
  if f[1] == '2' and f[2] == ARGV[at + 1] then
    held[#held + 1] = until_lost
    held[#held + 1] = id
    answers[#answers + 1] = f[3] and 1 or 0
  else
    answers[#answers + 1] = 2
  end
end
if held[1] then shared('ZADD', 'leased', unpack(held)) end
return answers
