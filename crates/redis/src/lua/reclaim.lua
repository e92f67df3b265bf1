-- Reclaims expired leases, oldest first. If no process reclaimed for a whole lease, all workers may have been cut off, so
-- nothing is reclaimed for one more lease.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 lease duration, 3 at most this many jobs, 4 error of a job that lost too many leases, 5 error of a job
--             whose cancellation was requested
-- Result      {0, how long to wait} or {1, 1 if more leases expired, now, {id, type, attempt, state, accepted, traceparent,
--             tracestate}, …}
-- Cost        O(log n) and 4 commands, 5 more for each job

local lease, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local f = call('HMGET', ns .. 'meta', 'swept', 'quiet')
local swept, quiet = whole(f[1]), whole(f[2]) or 0
if not swept or now - swept > lease then quiet = now + lease end
-- After the server's clock stepped back, the wait still ends within a lease.
quiet = math.min(quiet, now + lease)
call('HSET', ns .. 'meta', 'swept', now, 'quiet', quiet)
if quiet > now then return {0, quiet - now} end

local expired = call('ZRANGE', ns .. 'leased', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit + 1)
local answer = {1, #expired > limit and 1 or 0, now}
for at = 1, math.min(#expired, limit) do
  local id = expired[at]
  local job = running(id)
  if job.status == '2' then
    local named = job.name and job.name:match('^[%w._-]+$')
    local g = read(id, 'w', 'tp', 'ts')
    local accepted = tonumber((terms(g[1])))
    local after = named and accepted and finish(id, job, LOST, ARGV[4], ARGV[5], 0, false, '', '')
    if after then
      answer[#answer + 1] = {id, job.name, job.attempt, after, accepted, g[2] or '', g[3] or ''}
    else
      quarantine(job.name and 'running:' .. job.name or 'leased', id, 'a field cannot be read')
    end
  else
    drop_misplaced('leased', id)
  end
end
flush()
return answer
