-- Compares some jobs with the indexes, or some entries of an index with their jobs, and mends the indexes: the job decides.
-- What cannot be read is put aside.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 where to go on (empty: from the beginning)
-- Result      {where to go on (empty: that was everything), looked at, repaired, put aside}
-- Cost        5 commands and one for each type; about 15 for each job, 1 for each entry of an index whose job is there

local STEP = 100
local INDEXES = {'queued:', 'scheduled:', 'running:', 'completed:', 'failed:', 'canceled:'}
local STATES = {['queued:'] = '0', ['scheduled:'] = '1', ['delayed:'] = '1', ['completed:'] = '3', ['failed:'] = '4', ['canceled:'] = '5'}
local FIELDS = {'s', 't', 'w', 'd', 'f', 'k', 'o', 'gu', 'du', 'st', 'en', 'a', 'n', 'r', 'l', 'x', 'rs', 'u', 'e', 'cr'}
local NUMBERS = {'du', 'st', 'en', 'a', 'n', 'r', 'l', 'x', 'rs', 'u', 'e', 'cr'}
local repaired, quarantined = 0, 0

local function is_text(key) return call('TYPE', key).ok == 'string' end

-- Takes an entry out of all indexes of a type but one; whether it was in any.
local function only_in(name, id, index)
  local found = index ~= 'running:' and shared('ZREM', 'leased', id) or 0
  for _, other in ipairs(INDEXES) do
    if other ~= index then found = found + shared('ZREM', other .. name, id) end
  end
  return found > 0
end

local function away(name, id)
  local found = only_in(name, id, '')
  found = shared('ZREM', 'accepted:' .. name, id) == 1 or found
  return shared('SREM', 'delayed:' .. name, id) == 1 or found
end

local function quarantine_everywhere(id, name, why)
  for _, of in ipairs(name and {name} or shared('SMEMBERS', 'types')) do away(of, id) end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  quarantined = quarantined + shared('HSETNX', 'quarantine', id, string.format('%.0f repair %s', now, why))
end

-- Puts an entry where it belongs; whether it was not there.
local function put(index, score, id)
  local stands = shared('ZSCORE', index, id)
  if stands and tonumber(stands) == score then return false end
  shared('ZADD', index, score, id)
  return true
end

-- Why a job cannot be read, if it cannot.
local function unreadable(f)
  if not f.s or not f.s:match('^[0-5]$') then return 'its state cannot be read' end
  if not f.t or f.t:find('[^%w._-]') or f.t == '' then return 'its type cannot be read' end
  if not f.created then return 'its terms cannot be read' end
  if not whole(f.d) then return 'its field d cannot be read' end
  for _, field in ipairs(NUMBERS) do
    if f[field] and not whole(f[field]) then return 'its field ' .. field .. ' cannot be read' end
  end
  if not f.f or #f.f ~= 32 or f.o and #f.o ~= 32 then return 'whose it is cannot be read' end
  local without = f.s == '1' and not f.du and 'due time' or f.s == '2' and not f.st and 'start'
    or tonumber(f.s) >= 3 and not f.en and 'end'
  return without and 'it has no ' .. without
end

-- The record of its key: of another job that took its place, or its own.
local function repair_key(id, f)
  local record = ns .. 'key:' .. f.t .. ':' .. (f.o or '') .. ':' .. f.k
  local stands = redis.pcall('GET', record)
  if type(stands) == 'string' and (stands == id or call('EXISTS', ns .. 'job:' .. stands) == 1) then return false end
  call('SET', record, id)
  return true
end

local function repair(id)
  local job = ns .. 'job:' .. id
  local found = read(id, unpack(FIELDS))
  local f = {}
  for at, field in ipairs(FIELDS) do f[field] = found[at] end
  -- A tombstone, put aside before, or forgotten since it was found. Whatever index it is in, it is found there.
  if f.gu or f.s == '9' or call('EXISTS', job) == 0 then
    repaired = repaired + shared('ZREM', 'leased', id)
    return
  end
  f.created, f.priority = terms(f.w)
  local why = unreadable(f)
  local status = tonumber(f.s)
  if not why and status <= 2 and not is_text(ns .. 'body:' .. id) then why = 'it has no payload' end
  if why then return quarantine_everywhere(id, f.t, why) end

  local name, order, index = f.t, tonumber(f.d), INDEXES[status + 1]
  local score = ({[0] = ready_score(f.priority, order), tonumber(f.du), tonumber(f.st)})[status] or order
  local changed = put(index .. name, score, id)
  changed = only_in(name, id, index) or changed
  -- A lease that nobody knows of has expired: the next sweep takes it, or its worker renews it first.
  if status == 2 then
    local lease = tonumber(shared('ZSCORE', 'leased', id))
    if not lease or lease > 9007199254740991 then
      shared('ZADD', 'leased', now, id)
      changed = true
    end
  end
  local accepted = tonumber(shared('ZSCORE', 'accepted:' .. name, id))
  if not accepted or accepted < 0 or accepted > 9007199254740991 then
    shared('ZADD', 'accepted:' .. name, order_at(tonumber(f.created)), id)
    changed = true
  end
  local delayed = status == 1 and (f.a or '0') == '0'
  changed = shared(delayed and 'SADD' or 'SREM', 'delayed:' .. name, id) == 1 or changed
  if f.k then changed = repair_key(id, f) or changed end
  changed = shared('SADD', 'types', name) == 1 or changed
  if changed then repaired = repaired + 1 end
end

-- An entry of an index: its job must be there, of that type and in that state.
local function check(index, name, id)
  local f = read(id, 's', 't', 'gu')
  if f[1] and f[1] ~= '9' and not f[3] then
    local other = f[2] ~= name and away(name, id)
    if other then repaired = repaired + 1 end
    -- Its lease went with it, or may not be there.
    if other or f[1] ~= (STATES[index] or f[1]) or index == 'running:' then repair(id) end
  elseif f[1] or f[3] or shared('HEXISTS', 'quarantine', id) == 1 then
    if away(name, id) then repaired = repaired + 1 end
  elseif away(name, id) then -- Else it was pruned since it was found.
    quarantine_everywhere(id, nil, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end

-- What is looked at, in order: what waits and runs, all jobs, and all indexes, as jobs make their types known first.
local function places()
  local names, places = shared('SMEMBERS', 'types'), {}
  table.sort(names)
  local function all(round, indexes)
    places[#places + 1] = round .. ' leased'
    for _, index in ipairs(indexes) do
      for _, name in ipairs(names) do places[#places + 1] = round .. ' ' .. index .. name end
    end
  end
  all(1, {'running:', 'queued:', 'scheduled:', 'delayed:'})
  places[#places + 1] = '2 job:'
  all(3, {'delayed:', 'accepted:', unpack(INDEXES)})
  return places
end

local function jobs(cursor)
  local prefix = ns .. 'job:'
  local found = call('SCAN', cursor, 'MATCH', prefix .. '*', 'COUNT', STEP)
  for _, key in ipairs(found[2]) do repair(key:sub(#prefix + 1)) end
  return found[1], #found[2]
end

local function entries(key, cursor)
  local index, name = key:match('^(%a+:)(.+)$')
  local is_set = index == 'delayed:'
  local found, every = shared(is_set and 'SSCAN' or 'ZSCAN', key, cursor, 'COUNT', STEP), is_set and 1 or 2
  for at = 1, #found[2], every do
    if name then check(index, name, found[2][at]) else repair(found[2][at]) end
  end
  return found[1], #found[2] / every
end

-- One of another type is put aside by any command.
for _, key in ipairs({'heartbeats', 'workers', 'meta', 'quarantine'}) do shared(key == 'heartbeats' and 'ZCARD' or 'HLEN', key) end
local cursor, place = ARGV[2]:match('^(%d+) (.+)$')
local order, at = places(), 1
for other, name in ipairs(order) do
  if name == place then at = other end
end
-- A place that is not there any more, or never was: the server would refuse a longer cursor.
if order[at] ~= place or #cursor > 19 then cursor = '0' end
local key, looked = order[at]:match(' (.+)$'), 0
if key == 'job:' then cursor, looked = jobs(cursor) else cursor, looked = entries(key, cursor) end
if cursor == '0' then at = at + 1 end
if repaired > 0 then shared('HINCRBY', 'meta', 'repaired', repaired) end
return {order[at] and cursor .. ' ' .. order[at] or '', looked, repaired, quarantined}
