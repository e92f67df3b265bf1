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

-- Cuts ended jobs past their retention to tombstones, up to the first of each index that is not. Redis forgets tombstones
-- and keys by itself.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 jobs at most
-- Result      how many
-- Cost        3 commands for each type, 6 for each job

local DAY = 86400000000
local limit, cut = tonumber(ARGV[2]), 0

local function entomb(name, id, f)
  local job, created, _, _, _, kept, _, repeatable = ns .. 'job:' .. id, terms(f[3])
  local gone_until = f[2] + 2 * kept
  local forget = repeatable == '1' and math.max(gone_until, created + DAY) or gone_until
  call('DEL', job, ns .. 'body:' .. id, ns .. 'end:' .. id, ns .. 'past:' .. id, ns .. 'logs:' .. id)
  rem('accepted:' .. name, id)
  local left = math.ceil((forget - now) / 1000)
  local record = f[6] and ns .. 'key:' .. name .. ':' .. (f[4] or '') .. ':' .. f[6]
  -- Another job's, if its own was lost.
  if record and redis.pcall('GET', record) ~= id then record = nil end
  if left <= 0 then
    if record then call('DEL', record) end
    return
  end
  call('HSET', job, 'f', f[5], 'gu', gone_until, 'fg', forget, f[4] and 'o' or 'f', f[4] or f[5])
  call('PEXPIRE', job, string.format('%d', left))
  if record then call('PEXPIRE', record, string.format('%d', left)) end
end

local function prune(index, status, name)
  for _, id in ipairs(shared('ZRANGE', index .. name, 0, limit - cut - 1)) do
    local f = read(id, 's', 'en', 'w', 'o', 'f', 'k', 't')
    local kept = retention(f[3])
    if f[1] ~= status or f[7] ~= name then
      misplaced(index .. name, id)
    elseif whole(f[2]) and kept and f[5] then
      if now < f[2] + kept then return end
      entomb(name, id, f)
      rem(index .. name, id)
    else
      put_aside(index .. name, id, 'a field cannot be read')
    end
    cut = cut + 1
  end
end

for _, name in ipairs(shared('SMEMBERS', 'types')) do
  for at, index in ipairs({'completed:', 'failed:', 'canceled:'}) do
    if cut < limit then prune(index, tostring(2 + at), name) end
  end
end
flush()
return cut

-- As of the first release.
