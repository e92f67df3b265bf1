-- What cannot be read is put aside, so that it is never in the way again.

-- A command on a key that many jobs share. What stands in its place and is none of ours is renamed, a count that is no number
-- begins anew, and the command goes on: a script is not rolled back, so one that fails on its way would leave a half.
local function shared(command, name, ...)
  local key = ns .. name
  local done = redis.pcall(command, key, ...)
  if type(done) ~= 'table' or not done.err then return done end
  if done.err:find('WRONGTYPE', 1, true) then
    call('RENAME', key, ns .. 'replaced:' .. name)
  elseif command == 'HINCRBY' then
    call('HDEL', key, (...))
  else
    error(done)
  end
  done = call(command, key, ...)
  shared('HINCRBY', 'meta', 'repaired', 1)
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
local function quarantine(index, id, why)
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
local function drop_misplaced(index, id)
  local f = read(id, 's', 't', 'gu')
  local name = index:match(':(.+)$')
  if f[3] or f[1] and f[1]:match('^[0-5]$') and f[2] then
    shared('ZREM', index, id)
    if name and name ~= f[2] then
      shared('ZREM', 'accepted:' .. name, id)
      shared('SREM', 'delayed:' .. name, id)
    end
    shared('HINCRBY', 'meta', 'repaired', 1)
  elseif f[1] then
    quarantine(index, id, 'its state cannot be read')
  else
    quarantine(index, id, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end
