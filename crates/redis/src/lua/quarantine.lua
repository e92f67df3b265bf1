-- Repairs that scripts make in passing: counters, misplaced index entries, and jobs that cannot be read.

-- Adds to a counter that all jobs share. A counter that is no number, or that overflows, starts again at 0.
local function increment(key, field, by)
  local sum = redis.pcall('HINCRBY', ns .. key, field, by)
  if type(sum) == 'number' then return sum end
  call('HDEL', ns .. key, field)
  return call('HINCRBY', ns .. key, field, by)
end

-- The error of a call for one job that cannot be read.
local function unreadable(id) return redis.error_reply('UNREADABLE job ' .. id .. ' has fields that cannot be read') end

-- Removes a job from the index where it was found and from the other indexes of its type, and records the reason.
local function quarantine(index, id, why)
  local f = read(id, 't', 'o')
  local name = index:match(':(.+)$') or f[1]
  call('ZREM', ns .. 'leased', id)
  if f[2] then call('ZREM', ns .. 'owned:' .. f[2], id) end
  if index ~= 'leased' then call('ZREM', ns .. index, id) end
  if name then
    call('ZREM', ns .. 'running:' .. name, id)
    call('ZREM', ns .. 'accepted:' .. name, id)
    call('SREM', ns .. 'delayed:' .. name, id)
  end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  call('HSET', ns .. 'quarantine', id, string.format('%.0f %s %s', now, index, why))
end

-- Handles an index entry whose job has another state or type, or is only a tombstone: drops the entry, because the job
-- decides. Quarantines an entry whose job is missing or has no readable state.
local function drop_misplaced(index, id)
  local f = read(id, 's', 't', 'gu')
  local name = index:match(':(.+)$')
  if f[3] or f[1] and f[1]:match('^[0-5]$') and f[2] then
    call('ZREM', ns .. index, id)
    if name and name ~= f[2] then
      call('ZREM', ns .. 'accepted:' .. name, id)
      call('SREM', ns .. 'delayed:' .. name, id)
    end
    increment('meta', 'repaired', 1)
  elseif f[1] then
    quarantine(index, id, 'its state cannot be read')
  else
    quarantine(index, id, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end
