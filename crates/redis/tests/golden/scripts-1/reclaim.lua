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

-- What a field of a job says, if it is a whole number that a double keeps exact. `tonumber` takes 'nan', 'inf' and fractions
-- too, and a script that fails over one later, on its way, is not rolled back.
local function whole(text)
  local number = text and #text <= 16 and text:match('^%d+$') and tonumber(text)
  return number and number <= 9007199254740991 and number or nil
end

-- A number that goes to a command or into a name is printed each time, as a fraction may be. These are whole, and small ones
-- come again.
local texts = {}
local function text(number)
  local text = texts[number]
  if not text then
    text = string.format('%d', number)
    texts[number] = text
  end
  return text
end
local now_text = text(now)

-- What a job keeps for its whole life is one field, `w`: the fewer fields a hash has, the sooner it is written and read. Words,
-- in this order: format, accepted at, priority, retries and losses allowed, retention, bytes of payload, whether it may be
-- submitted again. A later version may add to them.
local TERMS = '^%d+ (%d+) (%d) (%d+) (%d+) (%d+) (%d+) ([01])'

-- Its words behind the format; nothing if they cannot be read.
local function terms(text)
  local created, priority, retries, losses, kept, size, again = (text or ''):match(TERMS)
  -- A longer one is no number that a double keeps exact.
  if created and math.max(#created, #retries, #losses, #kept, #size) <= 16 then
    return created, priority, retries, losses, kept, size, again
  end
end

local function retention(text)
  local _, _, _, _, kept = terms(text)
  return tonumber(kept)
end

-- Orders as scores. All stay below 2^53 until the year 2136, so that they are exact in a double.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end

-- What cannot be read is put aside, so that it is never in the way again.

-- A command on a key that many jobs share. What stands in its place and is none of ours is renamed, a count that is no number
-- begins anew, and the command goes on: a script is not rolled back, so one that fails on its way would leave a half.
local function shared(command, name, ...)
  local key = ns .. name
  local done = redis.pcall(command, key, ...)
  if type(done) ~= 'table' or not done.err then return done end
  if done.err:find('WRONGTYPE', 1, true) then
    call('RENAME', key, ns .. 'aside:' .. name)
  elseif command == 'HINCRBY' then
    call('HDEL', key, (...))
  else
    error(done)
  end
  done = call(command, key, ...)
  shared('HINCRBY', 'meta', 'mended', 1)
  return done
end

-- Fields of a job. A key that is no hash has none.
local function read(id, ...)
  local fields = redis.pcall('HMGET', ns .. 'job:' .. id, ...)
  return fields.err and {} or fields
end

-- The answer to whoever asks for a job that cannot be read.
local function unreadable(id) return redis.error_reply('CORRUPT job ' .. id .. ' has fields that cannot be read') end

-- Out of the index it was found in, and of those of the type that the index is of, or else the job. A job says so itself.
local function put_aside(index, id, why)
  local name = index:match(':(.+)$') or read(id, 't')[1]
  if index ~= 'leased' then shared('ZREM', index, id) end
  shared('ZREM', 'leased', id)
  if name then
    shared('ZREM', 'running:' .. name, id)
    shared('ZREM', 'accepted:' .. name, id)
    shared('SREM', 'delayed:' .. name, id)
  end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  shared('HSET', 'quarantine', id, string.format('%.0f %s %s', now, index, why))
end

-- An entry of an index that its job does not belong in: it is in another state, of another type, or only a tombstone is left
-- of it. It is dropped: the job decides, never the index. One whose job is not there, or says no state, is put aside.
local function misplaced(index, id)
  local f = read(id, 's', 't', 'gu')
  local name = index:match(':(.+)$')
  if f[3] or f[1] and f[1]:match('^[0-5]$') and f[2] then
    shared('ZREM', index, id)
    if name and name ~= f[2] then
      shared('ZREM', 'accepted:' .. name, id)
      shared('SREM', 'delayed:' .. name, id)
    end
    shared('HINCRBY', 'meta', 'mended', 1)
  elseif f[1] then
    put_aside(index, id, 'its state cannot be read')
  else
    put_aside(index, id, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end

-- What a script changes in orders, indexes and counts, collected and written at its end: a call costs more than what it
-- does.
local last_order
local function next_order()
  if not last_order then
    local last = whole(shared('HGET', 'meta', 'order'))
    last_order = math.max(last and last < SPAN and last or 0, order_at(now) - 1)
  end
  last_order = last_order + 1
  return last_order
end

local adds, rems, sets, dels, counts, changed, woken = {}, {}, {}, {}, {}, {}, {}

local function add(index, score, id)
  local list = adds[index]
  if not list then
    list = {}
    adds[index] = list
  end
  local last = #list
  list[last + 1], list[last + 2] = score, id
end

local function rem(index, id)
  local list = rems[index]
  if not list then
    list = {}
    rems[index] = list
  end
  list[#list + 1] = id
end

local function set(key, value)
  local last = #sets
  sets[last + 1], sets[last + 2] = key, value
end

local function count(field, by) counts[field] = (counts[field] or 0) + by end

local function flush()
  if sets[1] then call('MSET', unpack(sets)) end
  if dels[1] then call('DEL', unpack(dels)) end
  for index, ids in pairs(rems) do shared('ZREM', index, unpack(ids)) end
  for index, pair in pairs(adds) do
    -- A claimer that is told of the first one goes on until it finds none.
    if index:sub(1, 7) == 'queued:' and shared('ZCARD', index) == 0 then
      woken[#woken + 1] = 'w' .. index:sub(8)
    end
    shared('ZADD', index, unpack(pair))
  end
  if next(counts) then
    local slot = 'minute:' .. string.format('%d', math.floor(now / 60000000))
    local fresh = false
    for field, by in pairs(counts) do fresh = shared('HINCRBY', slot, field, by) == by or fresh end
    -- A little longer than slots are told.
    if fresh then call('PEXPIRE', ns .. slot, 22200000) end
  end
  if last_order then shared('HSET', 'meta', 'order', last_order) end
  if changed[1] then woken[#woken + 1] = 'j' .. table.concat(changed, ' ') end
  if woken[1] then call('PUBLISH', ns .. 'hints', table.concat(woken, '\n')) end
  adds, rems, sets, dels, counts, changed, woken = {}, {}, {}, {}, {}, {}, {}
end

-- Where a duration is counted: `store::BOUNDS`, in microseconds.
local BOUNDS = {5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000,
  60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000}

local function bucket(micros)
  for at = 1, #BOUNDS do
    if micros <= BOUNDS[at] then return text(at - 1) end
  end
  return text(#BOUNDS)
end

-- Ends a running attempt, and its job if that follows: `lifecycle::next`, in Lua.
local INDEX = {[3] = 'completed:', [4] = 'failed:', [5] = 'canceled:'}
local COMPLETED, RETRIED, FAILED, CANCELED, RELEASED, LOST = '0', '1', '2', '3', '4', '5'

-- What every end needs of a job. Fields that are asked for are looked for one by one, so the rest is read where it is needed.
local function running(id)
  local f = read(id, 's', 'tk', 't', 'st', 'cr', 'a', 'n')
  return {status = f[1], token = f[2], name = f[3], started = whole(f[4]), asked = f[5], attempt = whole(f[6] or '0'),
    version = whole(f[7] or '1')}
end

local function state_after(job, outcome, losses, max_losses)
  if outcome == COMPLETED then return 3 end
  if job.asked or outcome == CANCELED then return 5 end
  if outcome == RETRIED then return 1 end
  if outcome == FAILED or outcome == LOST and losses >= max_losses then return 4 end
  return 0
end

-- Where a job goes that did not complete, written into `fields`; nothing if it cannot be read.
local function go_on(id, job, outcome, fields, delay)
  local f = read(id, 'w', 'd', 'l', 'r', 'x')
  local _, priority, _, max_losses = terms(f[1])
  local order, losses, retries, releases = whole(f[2]), whole(f[3] or '0'), whole(f[4] or '0'), whole(f[5] or '0')
  if not (priority and order and losses and retries and releases) then return end
  local after = state_after(job, outcome, losses, tonumber(max_losses))
  local function also(field, to)
    fields[#fields + 1] = field
    fields[#fields + 1] = to
  end
  if outcome == LOST then
    -- The dead worker's token is worth nothing from here on, whatever it still tries.
    also('tk', '')
    also('l', losses + 1)
  end
  if after < 3 then
    local due = now + delay
    also('u', now_text)
    also('e', now_text)
    also('rs', due)
    if after == 1 then
      also('r', retries + 1)
      also('du', due)
      add('scheduled:' .. job.name, due, id)
    else
      if outcome == RELEASED then also('x', releases + 1) end
      add('queued:' .. job.name, ready_score(priority, order), id)
    end
  end
  return after
end

local function book(id, job, recorded, error)
  local past = ns .. 'past:' .. id
  if job.attempt > 20 then redis.pcall('LTRIM', past, -19, -1) end
  redis.pcall('RPUSH', past, string.format('%d %d %s %s ', job.attempt, job.started, now_text, recorded) .. error)
end

-- `value` is the result of a completed attempt, else its error, or nothing. Returns the state that the job went to; nothing
-- if the job cannot be read.
local function finish(id, job, outcome, value, if_canceled, delay, slow, span)
  local name = job.name
  if not (name and job.started and job.attempt and job.version) then return end
  local fields, after, recorded = {'n', text(job.version + 1)}, 3, COMPLETED
  if outcome ~= COMPLETED then
    after = go_on(id, job, outcome, fields, delay)
    if not after then return end
    recorded = after == 5 and CANCELED or outcome
  end
  local last = #fields
  fields[last + 1], fields[last + 2] = 's', text(after)
  -- The job's own state tells what a settlement led to that ended it: nothing follows it.
  if after < 3 or outcome == LOST then
    fields[last + 3], fields[last + 4] = 'sd', outcome == LOST and '' or text(after)
    last = last + 2
  end
  -- The attempt before told its own.
  if span ~= '' or job.attempt > 1 then fields[last + 3], fields[last + 4] = 'sp', span end
  rem('running:' .. name, id)
  rem('leased', id)
  if after >= 3 then
    local order = text(next_order())
    last = #fields
    fields[last + 1], fields[last + 2], fields[last + 3], fields[last + 4] = 'd', order, 'en', now_text
    add(INDEX[after] .. name, order, id)
  end
  call('HSET', ns .. 'job:' .. id, unpack(fields))
  if after == 3 then
    set(ns .. 'end:' .. id, value)
    dels[#dels + 1] = ns .. 'body:' .. id -- Nothing can run it again.
    -- A job that completed at its first attempt, as most do, has its only record derived.
    if job.attempt ~= 1 then book(id, job, recorded, '') end
  else
    local error = after == 5 and job.asked and if_canceled or value
    if error ~= '' then set(ns .. 'end:' .. id, error) end
    book(id, job, recorded, error)
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
    local after = named and accepted and finish(id, job, LOST, ARGV[4], ARGV[5], 0, false, '')
    if after then
      answer[#answer + 1] = {id, job.name, job.attempt, after, accepted, told[2] or '', told[3] or ''}
    else
      put_aside(job.name and 'running:' .. job.name or 'leased', id, 'a field cannot be read')
    end
  else
    misplaced('leased', id)
  end
end
flush()
return answer

-- As of the first release.
