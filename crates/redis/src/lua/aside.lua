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
