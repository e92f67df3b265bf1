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
-- Written often: a number that goes to a command is printed digit by digit each time.
local now_text = string.format('%.0f', now)

-- Orders as scores. All stay below 2^53 until the year 2136, so that they are exact in a double.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end

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

-- Compares jobs with the indexes, and mends these: the job decides. What cannot be read is put aside.
--
-- Keys        1 the namespace
-- Arguments   1 now, then for each entry: id, and the type of the index it was found in (empty: the job itself was found)
-- Result      {mended, put aside}
-- Cost        12 commands for each job, 1 for each entry of an index whose job is there

local INDEXES = {'queued:', 'scheduled:', 'running:', 'completed:', 'failed:', 'canceled:'}
local mended, aside = 0, 0

-- Takes an entry out of all indexes of a type but one; whether it was in any.
local function only_in(name, id, index)
  local found = call('ZSCORE', ns .. 'leased', id) and index ~= 'running:' and call('ZREM', ns .. 'leased', id) or 0
  for _, other in ipairs(INDEXES) do
    if other ~= index then found = found + call('ZREM', ns .. other .. name, id) end
  end
  return found > 0
end

local function away(name, id)
  local found = only_in(name, id, '')
  found = call('ZREM', ns .. 'accepted:' .. name, id) == 1 or found
  return call('SREM', ns .. 'delayed:' .. name, id) == 1 or found
end

local function quarantine(id, names, why)
  for _, name in ipairs(names) do away(name, id) end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  aside = aside + call('HSETNX', ns .. 'quarantine', id, string.format('%.0f %s %s', now, names[1] or '-', why))
end

-- Puts an entry where it belongs; whether it was not there.
local function put(index, score, id)
  local stands = call('ZSCORE', ns .. index, id)
  if stands and tonumber(stands) == score then return false end
  call('ZADD', ns .. index, score, id)
  return true
end

local function mend(id)
  local f = read(id, 's', 't', 'p', 'd', 'c', 'mr', 'ml', 'rt', 'f', 'du', 'st', 'en', 'a', 'k', 'o', 'gu')
  if f[16] or f[1] == '9' then return end
  local status, name, order = tonumber(f[1]), f[2], tonumber(f[4])
  local readable = status and status <= 5 and name and tonumber(f[3]) and order and tonumber(f[5]) and tonumber(f[6])
    and tonumber(f[7]) and tonumber(f[8]) and f[9] and #f[9] == 32
  local score = readable and ({[0] = ready_score(tonumber(f[3]), order), tonumber(f[10]), tonumber(f[11]), order, order, order})[status]
  if readable and status >= 3 and not tonumber(f[12]) then score = nil end
  if not score then
    return quarantine(id, name and {name} or call('SMEMBERS', ns .. 'types'), 'a field cannot be read')
  end
  if status <= 2 and call('EXISTS', ns .. 'body:' .. id) == 0 then
    return quarantine(id, {name}, 'it has no payload')
  end
  local index = INDEXES[status + 1]
  local changed = put(index .. name, score, id)
  changed = only_in(name, id, index) or changed
  -- A lease that nobody knows of has expired: the next sweep takes it, or its worker renews it first.
  if status == 2 and not call('ZSCORE', ns .. 'leased', id) then
    call('ZADD', ns .. 'leased', now, id)
    changed = true
  end
  if not call('ZSCORE', ns .. 'accepted:' .. name, id) then
    call('ZADD', ns .. 'accepted:' .. name, order_at(tonumber(f[5])), id)
    changed = true
  end
  if status == 1 and (f[13] or '0') == '0' then
    changed = call('SADD', ns .. 'delayed:' .. name, id) == 1 or changed
  else
    changed = call('SREM', ns .. 'delayed:' .. name, id) == 1 or changed
  end
  if f[14] then
    local record = ns .. 'key:' .. name .. ':' .. (f[15] or '') .. ':' .. f[14]
    changed = call('SET', record, id, 'NX') and true or changed
  end
  call('SADD', ns .. 'types', name)
  if changed then mended = mended + 1 end
end

-- An entry of an index: its job must be there.
local function check(id, name)
  local f = read(id, 's', 'gu')
  if f[1] and f[1] ~= '9' and not f[2] then return end
  if f[1] or f[2] then
    if away(name, id) then mended = mended + 1 end
  else
    quarantine(id, {name}, 'there is no such job')
  end
end

for at = 2, #ARGV, 2 do
  if ARGV[at + 1] == '' then mend(ARGV[at]) else check(ARGV[at], ARGV[at + 1]) end
end
if mended > 0 then call('HINCRBY', ns .. 'meta', 'mended', mended) end
return {mended, aside}

-- As of the first release.
