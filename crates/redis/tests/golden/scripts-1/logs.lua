#!lua flags=no-writes
local call, ns = redis.call, KEYS[1]
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  -- A test's clock, read before the call travelled: it must not go backwards here. A script that only reads cannot keep it.
  now = math.max(now, tonumber(call('GET', ns .. 'clock') or 0))
  redis.pcall('SET', ns .. 'clock', string.format('%.0f', now))
end
-- Written often: a number that goes to a command is printed digit by digit each time.
local now_text = string.format('%.0f', now)

-- What is known of an id: {0} nothing, {1, owner} its retention is over, {2, id, fields, outcome, attempts, ahead} the job.
local function lookup(id)
  local job = ns .. 'job:' .. id
  -- Whoever asks for a job that cannot be read is told so: nothing here goes on without what it needs.
  local f = call('HMGET', job, 's', 't', 'en', 'rt', 'gu', 'o')
  if f[5] then
    return now < tonumber(f[5]) and {1, f[6] or ''} or {0}
  end
  if not f[1] then return {0} end
  local ended, kept = tonumber(f[3]), tonumber(f[4] or 0)
  if ended and ended + kept <= now then
    return now < ended + 2 * kept and {1, f[6] or ''} or {0}
  end
  local ahead = f[1] == '0' and f[2] and call('ZRANK', ns .. 'queued:' .. f[2], id) or -1
  return {2, id, call('HGETALL', job), call('GET', ns .. 'end:' .. id), call('LRANGE', ns .. 'past:' .. id, 0, -1), ahead}
end

-- Lines that a job's handler logged.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 after this line, 4 lines at most
-- Result      records, oldest first: number, attempt, size, JSON, with a space between
-- Cost        6 commands

local id, after = ARGV[2], tonumber(ARGV[3])
if lookup(id)[1] ~= 2 then return {} end
local logs = ns .. 'logs:' .. id
local kept, lines = call('LLEN', logs), tonumber(call('HGET', ns .. 'job:' .. id, 'll') or 0)
-- Numbers have no gaps: what is not kept any more stood in front.
local from = math.max(after - (lines - kept), 0)
return call('LRANGE', logs, from, from + tonumber(ARGV[4]) - 1)

-- As of the first release.
