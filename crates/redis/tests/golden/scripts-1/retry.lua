#!lua
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

-- What is known of an id: {0} nothing, {1, owner} its retention is over, {2, id, fields, outcome, attempts, ahead} the job.
local function lookup(id)
  local job = ns .. 'job:' .. id
  -- Whoever asks for a job that cannot be read is told so: nothing here goes on without what it needs.
  local f = call('HMGET', job, 's', 't', 'en', 'w', 'gu', 'o')
  if f[5] then
    return now < tonumber(f[5]) and {1, f[6] or ''} or {0}
  end
  if not f[1] then return {0} end
  local ended, kept = whole(f[3]), f[3] and retention(f[4])
  if ended and kept and ended + kept <= now then return now < ended + 2 * kept and {1, f[6] or ''} or {0} end
  local ahead = f[1] == '0' and f[2] and call('ZRANK', ns .. 'queued:' .. f[2], id) or -1
  return {2, id, call('HGETALL', job), call('GET', ns .. 'end:' .. id), call('LRANGE', ns .. 'past:' .. id, 0, -1), ahead}
end

-- Makes a new job out of one that failed or was canceled, once. The job's own key is not copied.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 the new id, 4 traceparent, 5 tracestate
-- Result      {what, lookup}: 0 created, 1 it was repeated before, 2 it is in another state, 3 the new id is taken,
--             4 there is none, 5 its payload is not there
-- Cost        O(log n) and about 16 commands

local id, again = ARGV[2], ARGV[3]
local found = lookup(id)
if found[1] ~= 2 then return {4, found} end
local job, new = ns .. 'job:' .. id, ns .. 'job:' .. again
local f = read(id, 's', 't', 'n', 'rb', 'w', 'f', 'o')
local _, priority, max_retries, max_losses, kept, size = terms(f[5])
if not (f[2] and whole(f[3] or '1') and size and f[6]) then return unreadable(id) end
if f[4] then return {1, lookup(f[4])} end
if f[1] ~= '4' and f[1] ~= '5' then return {2, found} end
local taken = read(again, 'f', 'fg')
local forgotten = whole(taken[2])
if taken[1] and not (forgotten and forgotten <= now) then return {3, found} end
if call('TYPE', ns .. 'body:' .. id).ok ~= 'string' then return {5, found} end

local order, name = next_order(), f[2]
local again_terms = table.concat({1, now_text, priority, max_retries, max_losses, kept, size, 0}, ' ')
local set = {'t', name, 's', 0, 'w', again_terms, 'f', f[6], 'd', order, 'ro', id}
local function also(field, to)
  if to and to ~= '' then
    set[#set + 1] = field
    set[#set + 1] = to
  end
end
also('o', f[7])
also('tp', ARGV[4])
also('ts', ARGV[5])
-- What is left of one of that id, of whatever type, would be in the way when all is written.
call('DEL', new, ns .. 'end:' .. again, ns .. 'past:' .. again)
call('HSET', new, unpack(set))
call('COPY', ns .. 'body:' .. id, ns .. 'body:' .. again, 'REPLACE')
add('accepted:' .. name, order, again)
add('queued:' .. name, ready_score(priority, order), again)
-- Its version moves, and nothing else that a client sees: it ended when it ended.
call('HSET', job, 'rb', again, 'n', whole(f[3] or '1') + 1)
changed[1] = id
flush()
return {0, lookup(again)}

-- As of the first release.
