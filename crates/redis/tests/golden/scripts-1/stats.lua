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

-- Counts, ages and workers. Counts are the sizes of indexes, ages their heads: nothing scans all jobs.
--
-- Keys        1 the namespace
-- Arguments   1 now, then for each type that has cutoffs: name, slow after, overdue after, stuck after
-- Result      {now, workers, put aside, mended, types}; a type is {name, six counts, never started, oldest runnable and oldest
--             running (0: none), slow, overdue, stale, unrecovered}; a worker is {id, record}
-- Cost        about 12 commands for each type, one for each lease that expired long ago (1 000 at most)

local HEADS, COUNTED = 16, 1000
local INDEXES = {'queued:', 'scheduled:', 'running:', 'completed:', 'failed:', 'canceled:'}
local cutoffs = {}
for at = 2, #ARGV, 4 do
  cutoffs[ARGV[at]] = {slow = now - ARGV[at + 1], overdue = now - ARGV[at + 2], stuck = now - ARGV[at + 3]}
end

local function since(id)
  local f = read(id, 'rs', 'w')
  return whole(f[1] or terms(f[2])) or now
end

-- The first entries of each priority that has any. Only released and recovered jobs stand out of line.
local function by_priority(queue, visit)
  local from, over = 0, string.format('(%.0f', 10 * SPAN)
  while true do
    local head = call('ZRANGE', queue, string.format('%.0f', from), over, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    if not head[1] then return end
    local first = math.floor(tonumber(head[2]) / SPAN) * SPAN
    visit(first)
    from = first + SPAN
  end
end

local function oldest_runnable(name)
  local queue, oldest = ns .. 'queued:' .. name
  by_priority(queue, function(first)
    local heads = call('ZRANGE', queue, string.format('%.0f', first), string.format('(%.0f', first + SPAN), 'BYSCORE',
      'LIMIT', 0, HEADS, 'WITHSCORES')
    for at = 1, #heads, 2 do
      -- No job was runnable before the time in its order, or not by more than a moment.
      local least = (heads[at + 1] - first) / 256 * 1000 + 1735689600000000 - 10000
      if oldest and least > oldest then return end
      oldest = math.min(oldest or now, since(heads[at]))
    end
  end)
  local due = call('ZRANGE', ns .. 'scheduled:' .. name, 0, 0, 'WITHSCORES')
  if due[1] and tonumber(due[2]) <= now then oldest = math.min(oldest or now, tonumber(due[2])) end
  return oldest or 0
end

-- Runnable since before `stuck`. Many are counted by the time in their order; few are looked at one by one.
local function stale(name, stuck)
  local queue, stale = ns .. 'queued:' .. name, 0
  by_priority(queue, function(first)
    local from, to = string.format('%.0f', first), string.format('(%.0f', first + order_at(stuck) + 256)
    local some = call('ZCOUNT', queue, from, to)
    if some <= 4 * HEADS then
      for _, id in ipairs(call('ZRANGE', queue, from, to, 'BYSCORE', 'LIMIT', 0, 4 * HEADS)) do
        if since(id) < stuck then stale = stale + 1 end
      end
    else
      stale = stale + some
    end
  end)
  return stale + call('ZCOUNT', ns .. 'scheduled:' .. name, '-inf', string.format('(%.0f', stuck))
end

local unrecovered = {}
if next(cutoffs) then
  local latest
  for _, cutoff in pairs(cutoffs) do latest = math.max(latest or cutoff.stuck, cutoff.stuck) end
  local expired = call('ZRANGE', ns .. 'leased', '-inf', string.format('(%.0f', latest), 'BYSCORE', 'LIMIT', 0, COUNTED, 'WITHSCORES')
  for at = 1, #expired, 2 do
    local name = read(expired[at], 't')[1]
    if name and cutoffs[name] and tonumber(expired[at + 1]) < cutoffs[name].stuck then
      unrecovered[name] = (unrecovered[name] or 0) + 1
    end
  end
end

local function older(name, than) return call('ZCOUNT', ns .. 'running:' .. name, '-inf', string.format('(%.0f', than)) end

local types = {}
for _, name in ipairs(call('SMEMBERS', ns .. 'types')) do
  local of, cutoff = {name}, cutoffs[name]
  for _, index in ipairs(INDEXES) do of[#of + 1] = call('ZCARD', ns .. index .. name) end
  of[8] = call('SCARD', ns .. 'delayed:' .. name)
  of[9] = oldest_runnable(name)
  of[10] = tonumber(call('ZRANGE', ns .. 'running:' .. name, 0, 0, 'WITHSCORES')[2] or 0)
  of[11] = cutoff and older(name, cutoff.slow) or 0
  of[12] = cutoff and older(name, cutoff.overdue) or 0
  of[13] = cutoff and stale(name, cutoff.stuck) or 0
  of[14] = unrecovered[name] or 0
  types[#types + 1] = of
end

local workers = {}
for _, worker in ipairs(call('ZRANGE', ns .. 'beats', string.format('(%.0f', now), '+inf', 'BYSCORE')) do
  workers[#workers + 1] = {worker, call('HGET', ns .. 'workers', worker) or ''}
end
return {now, workers, call('HLEN', ns .. 'quarantine'), whole(call('HGET', ns .. 'meta', 'mended')) or 0, types}

-- As of the first release.
