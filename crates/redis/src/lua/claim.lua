-- Claims runnable jobs under a lease. Due jobs become runnable first. Jobs that cannot be read are quarantined.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 token, 3 worker, 4 lease duration, 5 at most this many jobs, 6 at most this many bytes of payload,
--             7 fields per quota, then for each type's quota: name, at most this many jobs
-- Result      {now, time until the next claim (0: more jobs are runnable, -1: none waits), attempts}; an attempt is {id, quota
--             (from 1), attempt, retries, terms, payload, runnable since, traceparent, tracestate, span of the attempt before,
--             owner, owner's name}
-- Cost        O(log n) and about 10 commands, 2 more for each job, 3 for each that became due (at most 100)

local PROMOTED, CHECKED = 100, 256
local token, worker, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local max, max_bytes, stride = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local quotas = {}
for at = 8, #ARGV, stride do quotas[#quotas + 1] = {name = ARGV[at], left = tonumber(ARGV[at + 1])} end

-- Reads when the next scheduled job of a type is due. Returns whether it is due now.
local function read_due(quota)
  local first = call('ZRANGE', ns .. 'scheduled:' .. quota.name, 0, 0, 'WITHSCORES')
  quota.due = tonumber(first[2])
  return quota.due and quota.due <= now
end

-- Makes due jobs of all types runnable, soonest first. Their order numbers come from when they were due.
local function promote()
  local due = {}
  for _, quota in ipairs(quotas) do
    if quota.due and quota.due <= now then
      local ids = call('ZRANGE', ns .. 'scheduled:' .. quota.name, '-inf', now, 'BYSCORE', 'LIMIT', 0, PROMOTED, 'WITHSCORES')
      for at = 1, #ids, 2 do due[#due + 1] = {id = ids[at], at = tonumber(ids[at + 1]), name = quota.name} end
    end
  end
  table.sort(due, function(a, b) return a.at < b.at or a.at == b.at and a.id < b.id end)
  for at = 1, math.min(#due, PROMOTED) do
    local id, name = due[at].id, due[at].name
    local f = read(id, 's', 'w', 'n', 'a', 'du', 't')
    local _, priority = terms(f[2])
    local version, due_at = whole(f[3] or '1'), whole(f[5])
    if f[1] ~= '1' or f[6] ~= name then
      drop_misplaced('scheduled:' .. name, id)
    elseif not (priority and version and due_at) then
      quarantine('scheduled:' .. name, id, 'a field cannot be read')
    elseif due_at > now then
      call('ZADD', ns .. 'scheduled:' .. name, due_at, id) -- The index disagreed with the job.
      increment('meta', 'repaired', 1)
    else
      local order = order_at(due_at)
      call('HSET', ns .. 'job:' .. id, 's', 0, 'd', order, 'n', version + 1, 'u', now_text, 'e', now_text)
      if not f[4] or f[4] == '0' then call('SREM', ns .. 'delayed:' .. name, id) end
      rem('scheduled:' .. name, id)
      add('queued:' .. name, ready_score(priority, order), id)
      changed[#changed + 1] = id
    end
  end
  flush()
  for _, quota in ipairs(quotas) do read_due(quota) end
end

local due = false
for _, quota in ipairs(quotas) do due = read_due(quota) or due end
if due then promote() end

-- Queues are read in parts of one entry more than could be claimed, which shows whether jobs are left.
local part = math.max(math.ceil((max + 1) / math.max(#quotas, 1)), 2)
for _, quota in ipairs(quotas) do
  quota.size, quota.from, quota.at, quota.heads = math.min(part, quota.left + 1), 0, 1, {}
end

local function head(quota)
  if quota.at > #quota.heads and not quota.drained then
    quota.heads = call('ZRANGE', ns .. 'queued:' .. quota.name, quota.from, quota.from + quota.size - 1, 'WITHSCORES')
    quota.from, quota.at = quota.from + quota.size, 1
    quota.drained = #quota.heads < 2 * quota.size
  end
  return quota.heads[quota.at], tonumber(quota.heads[quota.at + 1])
end

local function first()
  local best, best_id, best_score
  for place, quota in ipairs(quotas) do
    if quota.left > 0 then
      local id, score = head(quota)
      if id and (not best or score < best_score or score == best_score and id < best_id) then
        best, best_id, best_score = place, id, score
      end
    end
  end
  return best, best_id
end

-- All chosen jobs are read before the first is written, because Redis does not roll a failed script back.
local chosen, bodies, bytes, checked = {}, {}, 0, 0
while #chosen < max and checked < CHECKED do
  local place, id = first()
  if not place then break end
  checked = checked + 1
  local quota = quotas[place]
  local index = 'queued:' .. quota.name
  local f = read(id, 's', 't', 'w', 'n', 'tp', 'ts', 'o', 'ol')
  local g = f[4] and read(id, 'a', 'rs', 'tk', 'sd', 'r', 'sp') or {} -- Without a version the job never ran.
  local created, _, _, _, _, size = terms(f[3])
  local attempt, version, since = whole(g[1] or '0'), whole(f[4] or '1'), whole(g[2] or created)
  if f[1] ~= '0' or f[2] ~= quota.name then
    drop_misplaced(index, id)
    quota.from = quota.from - 1
  elseif not (size and attempt and version and since) then
    quarantine(index, id, 'a field cannot be read')
    quota.from = quota.from - 1
  else
    if bytes + size > max_bytes and #chosen > 0 then break end
    bytes = bytes + size
    quota.left = quota.left - 1
    chosen[#chosen + 1] = {id = id, place = place, attempt = attempt + 1, version = text(version + 1), since = since, terms = f[3],
      parent = f[5] or '', state = f[6] or '', owner = f[7] or '', label = f[8] or '', before = g}
    bodies[#bodies + 1] = ns .. 'body:' .. id
  end
  quota.at = quota.at + 2
end

local attempts = {}

-- Writes an attempt after the first. Returns the job's retries and the span of the attempt before.
local function again(job, one)
  local before, led_to = one.before[3], one.before[4]
  -- A settled claim stays recorded, because its settlement may be repeated late.
  local known = before and before ~= '' and led_to and led_to ~= ''
  call('HSET', job, 's', '2', 'a', text(one.attempt), 'st', now_text, 'n', one.version, 'tk', token, 'wk', worker, 'sd', '',
    'lt', known and before or '', 'ls', known and led_to or '')
  call('HDEL', job, 'pc', 'pt', 'pp', 'pm', 'pu')
  return whole(one.before[5]) or 0, one.before[6] or ''
end

if chosen[1] then
  local payloads = call('MGET', unpack(bodies))
  local lease_text = text(now + lease)
  for at, one in ipairs(chosen) do
    local id, attempt, since, name = one.id, one.attempt, one.since, quotas[one.place].name
    if not payloads[at] then
      quarantine('queued:' .. name, id, 'it has no payload')
    else
      local job, retries, span = ns .. 'job:' .. id, 0, ''
      if attempt == 1 then
        call('HSET', job, 's', '2', 'a', '1', 'st', now_text, 'n', one.version, 'tk', token, 'wk', worker)
      else
        retries, span = again(job, one)
      end
      rem('queued:' .. name, id)
      add('running:' .. name, now_text, id)
      add('leased', lease_text, id)
      local waited = math.max(now - since, 0)
      count(name .. '|q|' .. bucket(waited), 1)
      count(name .. '|wait', waited)
      changed[#changed + 1] = id
      attempts[#attempts + 1] = {id, one.place, attempt, retries, one.terms, payloads[at], since, one.parent, one.state, span,
        one.owner, one.label}
    end
  end
  flush()
end

local wait = -1
for _, quota in ipairs(quotas) do
  local left = quota.at <= #quota.heads or not quota.drained and call('ZCARD', ns .. 'queued:' .. quota.name) > 0
  if left or quota.due and quota.due <= now then
    wait = 0
    break
  end
  if quota.due and (wait < 0 or quota.due - now < wait) then wait = quota.due - now end
end
-- A damaged score may exceed the range of numbers in an answer.
return {now, math.min(wait, SPAN), attempts}
