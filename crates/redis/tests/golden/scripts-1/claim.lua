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

-- Takes runnable jobs under a lease. Due ones become runnable first; what cannot be read is put aside.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 token, 3 lease, 4 jobs at most, 5 bytes of payload at most, then for each wanted type: name, how many
-- Result      {now, until the next claim (0: more at once, -1: nothing waits), attempts}; an attempt is {id, wanted type
--             (from 1), attempt, retries, terms, payload, runnable since, traceparent, tracestate, span of the attempt
--             before}
-- Cost        O(log n) and about 10 commands, 2 more for each job, 3 for each that became due (100 at most)

local PROMOTED = 100
local token, lease, max, max_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local wants = {}
for at = 6, #ARGV, 2 do wants[#wants + 1] = {name = ARGV[at], left = tonumber(ARGV[at + 1])} end

local function look_for_due(want)
  local head = shared('ZRANGE', 'scheduled:' .. want.name, 0, 0, 'WITHSCORES')
  want.due = tonumber(head[2])
  return want.due and want.due <= now
end

-- Soonest first over all wanted types. Their order is the time they were due.
local function promote()
  local due = {}
  for _, want in ipairs(wants) do
    if want.due and want.due <= now then
      local ids = shared('ZRANGE', 'scheduled:' .. want.name, '-inf', now, 'BYSCORE', 'LIMIT', 0, PROMOTED, 'WITHSCORES')
      for at = 1, #ids, 2 do due[#due + 1] = {id = ids[at], at = tonumber(ids[at + 1]), name = want.name} end
    end
  end
  table.sort(due, function(a, b) return a.at < b.at or a.at == b.at and a.id < b.id end)
  for at = 1, math.min(#due, PROMOTED) do
    local id, name = due[at].id, due[at].name
    local job = ns .. 'job:' .. id
    local f = read(id, 's', 'w', 'n', 'a', 'du', 't')
    local _, priority = terms(f[2])
    local version, told = whole(f[3] or '1'), whole(f[5])
    if f[1] ~= '1' or f[6] ~= name then
      misplaced('scheduled:' .. name, id)
    elseif not (priority and version and told) then
      put_aside('scheduled:' .. name, id, 'a field cannot be read')
    elseif told > now then
      shared('ZADD', 'scheduled:' .. name, told, id) -- The job knows better when it is due.
      shared('HINCRBY', 'meta', 'mended', 1)
    else
      local order = order_at(told)
      call('HSET', job, 's', 0, 'd', order, 'n', version + 1, 'u', now_text, 'e', now_text)
      if not f[4] or f[4] == '0' then shared('SREM', 'delayed:' .. name, id) end
      rem('scheduled:' .. name, id)
      add('queued:' .. name, ready_score(priority, order), id)
      changed[#changed + 1] = id
    end
  end
  flush()
  for _, want in ipairs(wants) do look_for_due(want) end
end

local due = false
for _, want in ipairs(wants) do due = look_for_due(want) or due end
if due then promote() end

-- Heads of the queues are read in parts: one more than could be taken, so that what is left shows.
local part = math.max(math.ceil((max + 1) / math.max(#wants, 1)), 2)
for _, want in ipairs(wants) do
  want.size, want.from, want.at, want.heads = math.min(part, want.left + 1), 0, 1, {}
end

local function head(want)
  if want.at > #want.heads and not want.drained then
    want.heads = shared('ZRANGE', 'queued:' .. want.name, want.from, want.from + want.size - 1, 'WITHSCORES')
    want.from, want.at = want.from + want.size, 1
    want.drained = #want.heads < 2 * want.size
  end
  return want.heads[want.at], tonumber(want.heads[want.at + 1])
end

local function first()
  local best, best_id, best_score
  for place, want in ipairs(wants) do
    if want.left > 0 then
      local id, score = head(want)
      if id and (not best or score < best_score or score == best_score and id < best_id) then
        best, best_id, best_score = place, id, score
      end
    end
  end
  return best, best_id
end

-- Chosen first, written then: nothing is changed before everything is known to be readable.
local chosen, bodies, bytes, looked = {}, {}, 0, 0
while #chosen < max and looked < 256 do
  local place, id = first()
  if not place then break end
  looked = looked + 1
  local want = wants[place]
  local index = 'queued:' .. want.name
  local f = read(id, 's', 't', 'w', 'n', 'tp', 'ts')
  local g = f[4] and read(id, 'a', 'rs', 'tk', 'sd', 'r', 'sp') or {} -- Nothing happened to it yet, as to most.
  local created, _, _, _, _, size = terms(f[3])
  local attempt, version, since = whole(g[1] or '0'), whole(f[4] or '1'), whole(g[2] or created)
  if f[1] ~= '0' or f[2] ~= want.name then
    misplaced(index, id)
    want.from = want.from - 1
  elseif not (size and attempt and version and since) then
    put_aside(index, id, 'a field cannot be read')
    want.from = want.from - 1
  else
    if bytes + size > max_bytes and #chosen > 0 then break end
    bytes = bytes + size
    want.left = want.left - 1
    chosen[#chosen + 1] = {id = id, place = place, attempt = attempt + 1, version = text(version + 1), since = since, terms = f[3],
      parent = f[5] or '', state = f[6] or '', before = g}
    bodies[#bodies + 1] = ns .. 'body:' .. id
  end
  want.at = want.at + 2
end

local attempts = {}

-- Another attempt after the first: what is known of the claim before, and what its worker told.
local function again(job, one)
  local before, led_to = one.before[3], one.before[4]
  -- It stays known, if it settled: a repeat of that may come late.
  local known = before and before ~= '' and led_to and led_to ~= ''
  call('HSET', job, 's', '2', 'a', text(one.attempt), 'st', now_text, 'n', one.version, 'tk', token, 'sd', '', 'lt',
    known and before or '', 'ls', known and led_to or '')
  call('HDEL', job, 'pc', 'pt', 'pp', 'pm', 'pu')
  return whole(one.before[5]) or 0, one.before[6] or ''
end

if chosen[1] then
  local payloads = call('MGET', unpack(bodies))
  local lease_text = text(now + lease)
  for at, one in ipairs(chosen) do
    local id, attempt, since, name = one.id, one.attempt, one.since, wants[one.place].name
    if not payloads[at] then
      put_aside('queued:' .. name, id, 'it has no payload')
    else
      local job, retries, span = ns .. 'job:' .. id, 0, ''
      if attempt == 1 then
        call('HSET', job, 's', '2', 'a', '1', 'st', now_text, 'n', one.version, 'tk', token)
      else
        retries, span = again(job, one)
      end
      rem('queued:' .. name, id)
      add('running:' .. name, now_text, id)
      add('leased', lease_text, id)
      local waited = math.max(now - since, 0)
      count(name .. '|q|' .. bucket(waited), 1)
      count(name .. '|wait', waited)
      changed[#changed + 1] = id
      attempts[#attempts + 1] = {id, one.place, attempt, retries, one.terms, payloads[at], since, one.parent, one.state, span}
    end
  end
  flush()
end

local wait = -1
for _, want in ipairs(wants) do
  local left = want.at <= #want.heads or not want.drained and shared('ZCARD', 'queued:' .. want.name) > 0
  if left or want.due and want.due <= now then
    wait = 0
    break
  end
  if want.due and (wait < 0 or want.due - now < wait) then wait = want.due - now end
end
return {now, wait, attempts}

-- As of the first release.
