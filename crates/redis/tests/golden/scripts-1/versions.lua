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

-- The versions of jobs.
--
-- Keys        1 the namespace
-- Arguments   1 now, then ids
-- Result      for each id its version, 0 if there is no such job
-- Cost        one command for each id

local answers = {}
for at = 2, #ARGV do
  local f = read(ARGV[at], 's', 'n', 'en', 'w')
  local ended, kept = whole(f[3]), f[3] and retention(f[4])
  local expired = ended and kept and ended + kept <= now
  answers[#answers + 1] = f[1] and not expired and whole(f[2] or '1') or 0
end
return answers

-- As of the first release.
