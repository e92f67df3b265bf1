-- Takes expired leases away, oldest first. Nobody swept for a whole lease: everybody may have been cut off, so nothing is
-- taken for one more.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 lease, 3 jobs at most, 4 error of a job that lost too many, 5 error of one asked to cancel
-- Result      {0, how long to wait} or {1, whether more expired, now, {id, type, attempt, state, accepted, traceparent, tracestate}, …}
-- Cost        O(log n) and 4 commands, 5 more for each job

local lease, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local f = shared('HMGET', 'meta', 'swept', 'quiet')
local swept, quiet = whole(f[1]), whole(f[2]) or 0
if not swept or now - swept > lease then quiet = now + lease end
-- Never longer than a lease, also if the clock was wrong when it was written.
quiet = math.min(quiet, now + lease)
shared('HSET', 'meta', 'swept', now, 'quiet', quiet)
if quiet > now then return {0, quiet - now} end

local expired = shared('ZRANGE', 'leased', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit + 1)
local answer = {1, #expired > limit and 1 or 0, now}
for at = 1, math.min(#expired, limit) do
  local id = expired[at]
  local job = running(id)
  if job.status == '2' then
    local named = job.name and job.name:match('^[%w._-]+$')
    local told = read(id, 'w', 'tp', 'ts')
    local accepted = tonumber((terms(told[1])))
    local after = named and accepted and finish(id, job, LOST, ARGV[4], ARGV[5], 0, false, '', '')
    if after then
      answer[#answer + 1] = {id, job.name, job.attempt, after, accepted, told[2] or '', told[3] or ''}
    else
      quarantine(job.name and 'running:' .. job.name or 'leased', id, 'a field cannot be read')
    end
  else
    drop_misplaced('leased', id)
  end
end
flush()
return answer
