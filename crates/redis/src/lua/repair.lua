-- Compares some jobs with their index entries, or some index entries with their jobs, and repairs the indexes: the job
-- decides. Quarantines jobs that cannot be read.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 the place to continue at (empty: the beginning)
-- Result      {the place to continue at (empty: all is done), checked, repaired, quarantined}
-- Cost        5 commands and 1 for each type; about 16 for each job, 1 for each index entry whose job is in order

local STEP = 100
local INDEXES = {'queued:', 'scheduled:', 'running:', 'completed:', 'failed:', 'canceled:'}
local STATES = {['queued:'] = '0', ['scheduled:'] = '1', ['delayed:'] = '1', ['completed:'] = '3', ['failed:'] = '4', ['canceled:'] = '5'}
local FIELDS = {'s', 't', 'w', 'd', 'f', 'k', 'o', 'gu', 'du', 'st', 'en', 'a', 'n', 'r', 'l', 'x', 'rs', 'u', 'e', 'cr'}
local NUMBERS = {'du', 'st', 'en', 'a', 'n', 'r', 'l', 'x', 'rs', 'u', 'e', 'cr'}
local repaired, quarantined = 0, 0

-- Removes a job from the indexes of a type except one. Returns whether it was in any.
local function remove_from_others(name, id, index)
  local found = index ~= 'running:' and call('ZREM', ns .. 'leased', id) or 0
  for _, other in ipairs(INDEXES) do
    if other ~= index then found = found + call('ZREM', ns .. other .. name, id) end
  end
  return found > 0
end

local function remove_from_all(name, id)
  local found = remove_from_others(name, id, '')
  found = call('ZREM', ns .. 'accepted:' .. name, id) == 1 or found
  return call('SREM', ns .. 'delayed:' .. name, id) == 1 or found
end

local function quarantine_everywhere(id, name, why)
  local owner = read(id, 'o')[1]
  if owner then call('ZREM', ns .. 'owned:' .. owner, id) end
  for _, of in ipairs(name and {name} or call('SMEMBERS', ns .. 'types')) do remove_from_all(of, id) end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  quarantined = quarantined + call('HSETNX', ns .. 'quarantine', id, string.format('%.0f repair %s', now, why))
end

-- Writes an index entry. Returns whether it was missing or had another score.
local function put(index, score, id)
  local stored = call('ZSCORE', ns .. index, id)
  if stored and tonumber(stored) == score then return false end
  call('ZADD', ns .. index, score, id)
  return true
end

-- Returns why a job cannot be read; nil or false if it can.
local function reason(f)
  if not f.s or not f.s:match('^[0-5]$') then return 'its state cannot be read' end
  if not f.t or f.t:find('[^%w._-]') or f.t == '' then return 'its type cannot be read' end
  if not f.created then return 'its terms cannot be read' end
  if not whole(f.d) then return 'its field d cannot be read' end
  for _, field in ipairs(NUMBERS) do
    if f[field] and not whole(f[field]) then return 'its field ' .. field .. ' cannot be read' end
  end
  if not f.f or #f.f ~= 32 or f.o and #f.o ~= 32 then return 'its owner or fingerprint cannot be read' end
  local missing = f.s == '1' and not f.du and 'due time' or f.s == '2' and not f.st and 'start'
    or tonumber(f.s) >= 3 and not f.en and 'end'
  return missing and 'it has no ' .. missing
end

-- Restores the record of the job's idempotency key, unless a later job has it.
local function repair_key(id, f)
  local record = ns .. 'key:' .. f.t .. ':' .. (f.o or '') .. ':' .. f.k
  local stored = redis.pcall('GET', record)
  if type(stored) == 'string' and (stored == id or call('EXISTS', ns .. 'job:' .. stored) == 1) then return false end
  call('SET', record, id)
  return true
end

local function repair(id)
  local job = ns .. 'job:' .. id
  local found = read(id, unpack(FIELDS))
  local f = {}
  for at, field in ipairs(FIELDS) do f[field] = found[at] end
  -- A tombstone, a quarantined job, or a job deleted since it was found. Its entries in other indexes are found there.
  if f.gu or f.s == '9' or call('EXISTS', job) == 0 then
    repaired = repaired + call('ZREM', ns .. 'leased', id)
    return
  end
  f.created, f.priority = terms(f.w)
  local why = reason(f)
  local status = tonumber(f.s)
  if not why and status <= 2 and call('TYPE', ns .. 'body:' .. id).ok ~= 'string' then why = 'it has no payload' end
  if why then return quarantine_everywhere(id, f.t, why) end

  local name, order, index = f.t, tonumber(f.d), INDEXES[status + 1]
  local score = ({[0] = ready_score(f.priority, order), tonumber(f.du), tonumber(f.st)})[status] or order
  local changed = put(index .. name, score, id)
  changed = remove_from_others(name, id, index) or changed
  -- A lost lease counts as expired: the next reclaim takes the job, unless its worker renews the lease first.
  if status == 2 then
    local lease = tonumber(call('ZSCORE', ns .. 'leased', id))
    if not lease or lease > 9007199254740991 then
      call('ZADD', ns .. 'leased', now, id)
      changed = true
    end
  end
  local accepted = tonumber(call('ZSCORE', ns .. 'accepted:' .. name, id))
  if not accepted or accepted < 0 or accepted > 9007199254740991 then
    accepted = order_at(tonumber(f.created))
    call('ZADD', ns .. 'accepted:' .. name, accepted, id)
    changed = true
  end
  if f.o then changed = put('owned:' .. f.o, accepted, id) or changed end
  local delayed = status == 1 and (f.a or '0') == '0'
  changed = call(delayed and 'SADD' or 'SREM', ns .. 'delayed:' .. name, id) == 1 or changed
  if f.k then changed = repair_key(id, f) or changed end
  changed = call('SADD', ns .. 'types', name) == 1 or changed
  if changed then repaired = repaired + 1 end
end

-- Checks an index entry: its job must exist and have this type and state.
local function check(index, name, id)
  local f = read(id, 's', 't', 'gu')
  if f[1] and f[1] ~= '9' and not f[3] then
    local removed = f[2] ~= name and remove_from_all(name, id)
    if removed then repaired = repaired + 1 end
    -- The lease was removed as well, or a running job may have none.
    if removed or f[1] ~= (STATES[index] or f[1]) or index == 'running:' then repair(id) end
  elseif f[1] or f[3] or call('HEXISTS', ns .. 'quarantine', id) == 1 then
    if remove_from_all(name, id) then repaired = repaired + 1 end
  elseif remove_from_all(name, id) then -- Otherwise the job was pruned since the entry was read.
    quarantine_everywhere(id, nil, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end

-- All places in order: the indexes of jobs that wait and run, then all jobs, which restore lost types, then all indexes.
local function places()
  local names, places = call('SMEMBERS', ns .. 'types'), {}
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
  local found, every = call(is_set and 'SSCAN' or 'ZSCAN', ns .. key, cursor, 'COUNT', STEP), is_set and 1 or 2
  for at = 1, #found[2], every do
    if name then check(index, name, found[2][at]) else repair(found[2][at]) end
  end
  return found[1], #found[2] / every
end

local cursor, place = ARGV[2]:match('^(%d+) (.+)$')
local all, at = places(), 1
for other, name in ipairs(all) do
  if name == place then at = other end
end
-- The place does not exist any more.
if all[at] ~= place then cursor = '0' end
local key, checked = all[at]:match(' (.+)$'), 0
if key == 'job:' then cursor, checked = jobs(cursor) else cursor, checked = entries(key, cursor) end
if cursor == '0' then at = at + 1 end
if repaired > 0 then increment('meta', 'repaired', repaired) end
return {all[at] and cursor .. ' ' .. all[at] or '', checked, repaired, quarantined}
