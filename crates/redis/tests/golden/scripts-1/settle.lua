#!lua flags=allow-oom
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

-- Orders as scores. All stay below 2^53 until the year 2136, so that they are exact in a double.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end

-- What a script changes in orders, indexes and counts, collected and written at its end: a call costs more than what it
-- does.
local last_order
local function next_order()
  last_order = last_order or tonumber(call('HGET', ns .. 'meta', 'order') or 0)
  last_order = math.max(last_order + 1, order_at(now))
  return last_order
end

local adds, rems, counts, changed, woken = {}, {}, {}, {}, {}

local function push(lists, name, ...)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  for _, item in ipairs({...}) do list[#list + 1] = item end
end

local function add(index, score, id) push(adds, index, score, id) end
local function rem(index, id) push(rems, index, id) end
local function count(field, by) counts[field] = (counts[field] or 0) + by end

local function flush()
  for index, ids in pairs(rems) do call('ZREM', ns .. index, unpack(ids)) end
  for index, pair in pairs(adds) do
    -- A claimer that is told of the first one goes on until it finds none.
    if index:sub(1, 7) == 'queued:' and call('ZCARD', ns .. index) == 0 then
      woken[#woken + 1] = 'w' .. index:sub(8)
    end
    call('ZADD', ns .. index, unpack(pair))
  end
  if next(counts) then
    local slot = ns .. 'minute:' .. string.format('%d', math.floor(now / 60000000))
    local fresh = false
    for field, by in pairs(counts) do fresh = call('HINCRBY', slot, field, by) == by or fresh end
    -- A little longer than slots are told.
    if fresh then call('PEXPIRE', slot, 22200000) end
  end
  if last_order then call('HSET', ns .. 'meta', 'order', last_order) end
  if changed[1] then woken[#woken + 1] = 'j' .. table.concat(changed, ' ') end
  if woken[1] then call('PUBLISH', ns .. 'hints', table.concat(woken, '\n')) end
  adds, rems, counts, changed, woken = {}, {}, {}, {}, {}
end

-- Where a duration is counted: `store::BOUNDS`, in microseconds.
local BOUNDS = {5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000,
  60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000}

local function bucket(micros)
  for at, bound in ipairs(BOUNDS) do
    if micros <= bound then return at - 1 end
  end
  return #BOUNDS
end

-- What cannot be read is put aside, so that it is never in the way again.

-- Fields of a job. A key that is no hash has none.
local function read(id, ...)
  local fields = redis.pcall('HMGET', ns .. 'job:' .. id, ...)
  return fields.err and {} or fields
end

local function put_aside(index, id, why)
  local name = index:match(':(.+)$')
  call('ZREM', ns .. index, id)
  call('ZREM', ns .. 'leased', id)
  if name then
    call('ZREM', ns .. 'accepted:' .. name, id)
    call('SREM', ns .. 'delayed:' .. name, id)
  end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  call('HSET', ns .. 'quarantine', id, string.format('%.0f %s %s', now, index, why))
end

-- An entry of an index whose job is in another state is dropped: the job decides, never the index. One whose job is not
-- there, or says no state, is put aside.
local function misplaced(index, id, status)
  if status and tonumber(status) and tonumber(status) <= 5 then
    call('ZREM', ns .. index, id)
    call('HINCRBY', ns .. 'meta', 'mended', 1)
  else
    put_aside(index, id, status and 'its state cannot be read' or 'there is no such job')
  end
end

-- Ends a running attempt, and its job if that follows: `lifecycle::next`, in Lua.
local INDEX = {[3] = 'completed:', [4] = 'failed:', [5] = 'canceled:'}
local COMPLETED, RETRIED, FAILED, CANCELED, RELEASED, LOST = 0, 1, 2, 3, 4, 5

-- What `finish` needs of a job; nothing if that cannot be read.
local function running(id)
  local f = read(id, 's', 'tk', 'sd', 'lt', 'ls', 'cr', 't', 'p', 'd', 'a', 'r', 'l', 'ml', 'x', 'st', 'n')
  local job = {status = f[1], token = f[2], settled = f[3], last = f[4], last_settled = f[5], asked = f[6],
    name = f[7], priority = tonumber(f[8]), order = tonumber(f[9]), attempt = tonumber(f[10] or 0),
    retries = tonumber(f[11] or 0), losses = tonumber(f[12] or 0), max_losses = tonumber(f[13]),
    releases = tonumber(f[14] or 0), started = tonumber(f[15] or now), version = tonumber(f[16] or 1)}
  local readable = job.name and job.priority and job.order and job.attempt and job.retries and job.losses
    and job.max_losses and job.releases and job.started and job.version
  return readable and job
end

local function state_after(job, outcome)
  if outcome == COMPLETED then return 3 end
  if job.asked or outcome == CANCELED then return 5 end
  if outcome == RETRIED then return 1 end
  if outcome == FAILED or outcome == LOST and job.losses >= job.max_losses then return 4 end
  return 0
end

-- `value` is the result of a completed attempt, else its error, or nothing. Returns the state that the job went to.
local function finish(id, job, outcome, value, if_canceled, delay, slow, span)
  local key, name = ns .. 'job:' .. id, job.name
  local after = state_after(job, outcome)
  local recorded = after == 5 and CANCELED or outcome
  if after == 5 and job.asked then value = if_canceled end
  local error = after ~= 3 and value ~= '' and value or ''

  local set = {'s', after, 'n', job.version + 1, 'u', now, 'e', now, 'sp', span}
  local function also(field, to)
    set[#set + 1] = field
    set[#set + 1] = to
  end
  if outcome == LOST then
    -- The dead worker's token is worth nothing from here on, whatever it still tries.
    also('tk', '')
    also('sd', '')
    also('l', job.losses + 1)
  else
    also('sd', after)
  end
  rem('running:' .. name, id)
  rem('leased', id)
  if after >= 3 then
    local order = next_order()
    also('d', order)
    also('en', now)
    add(INDEX[after] .. name, order, id)
  else
    local due = now + delay
    also('rs', due)
    if after == 1 then
      also('r', job.retries + 1)
      also('du', due)
      add('scheduled:' .. name, due, id)
    else
      if outcome == RELEASED then also('x', job.releases + 1) end
      add('queued:' .. name, ready_score(job.priority, job.order), id)
    end
  end
  call('HSET', key, unpack(set))
  if after == 3 then
    call('SET', ns .. 'end:' .. id, value)
    call('DEL', ns .. 'body:' .. id) -- Nothing can run it again.
  elseif error ~= '' then
    call('SET', ns .. 'end:' .. id, error)
  end
  -- A job that completed at its first attempt, as most do, has its only record derived.
  if recorded ~= COMPLETED or job.attempt ~= 1 then
    local past = ns .. 'past:' .. id
    local record = string.format('%d %.0f %.0f %d ', job.attempt, job.started, now, recorded) .. error
    if job.attempt > 20 then call('LTRIM', past, -19, -1) end
    call('RPUSH', past, record)
  end

  if outcome == LOST then
    count(name .. '|' .. recorded, 1)
    if after == 4 then count(name .. '|e4', 1) end
  else
    local ran = math.max(now - job.started, 0)
    count(name .. '|' .. recorded .. '|' .. bucket(ran), 1)
    count(name .. '|run', ran)
    if slow then count(name .. '|slow', 1) end
  end
  changed[#changed + 1] = id
  return after
end

-- Ends attempts, each guarded by its lease. A repeat is answered as before and changes nothing.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 how many errors for jobs whose cancellation was requested, then those, then for each attempt: id,
--             token, outcome (as `AttemptOutcome`), result or error, delay, which of those errors, slow (1 or empty), span
-- Result      for each attempt the state that its job went to by it, or -1: lost
-- Cost        O(log n) and about 6 commands, 3 or 4 more for each job

local FIELDS = 8
local errors = tonumber(ARGV[2])
local answers, ended = {}, {}

local function settle(at)
  local id, token = ARGV[at], ARGV[at + 1]
  local again = ended[id .. token]
  if again then return again end
  local job = running(id)
  if not job then return -1 end
  if job.status == '2' and job.token == token then
    local after = finish(id, job, tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[2 + tonumber(ARGV[at + 5])],
      tonumber(ARGV[at + 4]), ARGV[at + 6] == '1', ARGV[at + 7])
    ended[id .. token] = after
    return after
  end
  if job.token == token and job.settled and job.settled ~= '' then return tonumber(job.settled) end
  if job.last == token and job.last_settled ~= '' then return tonumber(job.last_settled) end
  return -1
end

for at = 3 + errors, #ARGV, FIELDS do answers[#answers + 1] = settle(at) end
flush()
return answers

-- As of the first release.
