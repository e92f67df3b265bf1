-- Records a worker's heartbeat and renews its leases.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 worker, 3 its record, 4 how long the worker counts as alive (0: deregisters it), 5 lease duration,
--             6 fields per lease, then for each lease: id, token
-- Result      for each lease 0 held, 1 held and cancellation requested, 2 lost
-- Cost        O(log n) and 4 commands, 1 more for each lease

local worker, until_dead, lease, stride = ARGV[2], now + tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if until_dead > now then
  call('ZADD', ns .. 'heartbeats', until_dead, worker)
  call('HSET', ns .. 'workers', worker, string.format('%.0f %s', now, ARGV[3]))
end
local dead = call('ZRANGE', ns .. 'heartbeats', '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)
if until_dead == now then dead[#dead + 1] = worker end
if dead[1] then
  call('ZREM', ns .. 'heartbeats', unpack(dead))
  call('HDEL', ns .. 'workers', unpack(dead))
end

local answers, held, until_lost = {}, {}, text(now + lease)
for at = 7, #ARGV, stride do
  local id, token = ARGV[at], ARGV[at + 1]
  local f = read(id, 's', 'tk', 'cr')
  if f[1] == '2' and f[2] == token then
    held[#held + 1] = until_lost
    held[#held + 1] = id
    answers[#answers + 1] = f[3] and 1 or 0
  else
    answers[#answers + 1] = 2
  end
end
if held[1] then call('ZADD', ns .. 'leased', unpack(held)) end
return answers
