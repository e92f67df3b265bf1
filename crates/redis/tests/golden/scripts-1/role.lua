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

-- Takes, keeps or gives up a role.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 name, 3 who asks, 4 for how long (0: gives it up), 5 the token of a new holder
-- Result      {0, token} held · {1, for how long} somebody else's · {2} given up
-- Cost        2 commands

local role, who, ttl = 'role:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local f = shared('HMGET', role, 'holder', 'token', 'until')
local held = f[1] and f[2] and (whole(f[3]) or 0) > now
if held and f[1] ~= who then return ttl == 0 and {2} or {1, f[3] - now} end
if ttl == 0 then
  call('DEL', ns .. role)
  return {2}
end
local token = held and f[2] or ARGV[5]
call('HSET', ns .. role, 'holder', who, 'token', token, 'until', now + ttl)
return {0, token}

-- As of the first release.
