-- Takes runnable jobs under a lease. Due ones become runnable first; what cannot be read is put aside.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 token, 3 lease, 4 jobs at most, 5 bytes of payload at most, then for each wanted type: name, how many
-- Result      {now, until the next claim (0: more at once, -1: nothing waits), attempts}; an attempt is {id, wanted type
--             (from 1), attempt, retries, terms, payload, runnable since, traceparent, tracestate, span of the attempt
--             before}
-- Cost        O(log n) and about 10 commands, 2 more for each job, 3 for each that became due (100 at most)

local PROMOTED = 100
local token, lease, max, max_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local wants = {}
for at = 6, #ARGV, 2 do wants[#wants + 1] = {name = ARGV[at], left = tonumber(ARGV[at + 1])} end

local function look_for_due(want)
  local head = shared('ZRANGE', 'scheduled:' .. want.name, 0, 0, 'WITHSCORES')
  want.due = tonumber(head[2])
  return want.due and want.due <= now
end

-- Soonest first over all wanted types. Their order is the time they were due.
local function promote()
  local due = {}
  for _, want in ipairs(wants) do
    if want.due and want.due <= now then
      local ids = shared('ZRANGE', 'scheduled:' .. want.name, '-inf', now, 'BYSCORE', 'LIMIT', 0, PROMOTED, 'WITHSCORES')
      for at = 1, #ids, 2 do due[#due + 1] = {id = ids[at], at = tonumber(ids[at + 1]), name = want.name} end
    end
  end
  table.sort(due, function(a, b) return a.at < b.at or a.at == b.at and a.id < b.id end)
  for at = 1, math.min(#due, PROMOTED) do
    local id, name = due[at].id, due[at].name
    local job = ns .. 'job:' .. id
    local f = read(id, 's', 'w', 'n', 'a', 'du', 't')
    local _, priority = terms(f[2])
    local version, told = whole(f[3] or '1'), whole(f[5])
    if f[1] ~= '1' or f[6] ~= name then
      drop_misplaced('scheduled:' .. name, id)
    elseif not (priority and version and told) then
      quarantine('scheduled:' .. name, id, 'a field cannot be read')
    elseif told > now then
      shared('ZADD', 'scheduled:' .. name, told, id) -- The job knows better when it is due.
      shared('HINCRBY', 'meta', 'repaired', 1)
    else
      local order = order_at(told)
      call('HSET', job, 's', 0, 'd', order, 'n', version + 1, 'u', now_text, 'e', now_text)
      if not f[4] or f[4] == '0' then shared('SREM', 'delayed:' .. name, id) end
      rem('scheduled:' .. name, id)
      add('queued:' .. name, ready_score(priority, order), id)
      changed[#changed + 1] = id
    end
  end
  flush()
  for _, want in ipairs(wants) do look_for_due(want) end
end

local due = false
for _, want in ipairs(wants) do due = look_for_due(want) or due end
if due then promote() end

-- Heads of the queues are read in parts: one more than could be taken, so that what is left shows.
local part = math.max(math.ceil((max + 1) / math.max(#wants, 1)), 2)
for _, want in ipairs(wants) do
  want.size, want.from, want.at, want.heads = math.min(part, want.left + 1), 0, 1, {}
end

local function head(want)
  if want.at > #want.heads and not want.drained then
    want.heads = shared('ZRANGE', 'queued:' .. want.name, want.from, want.from + want.size - 1, 'WITHSCORES')
    want.from, want.at = want.from + want.size, 1
    want.drained = #want.heads < 2 * want.size
  end
  return want.heads[want.at], tonumber(want.heads[want.at + 1])
end

local function first()
  local best, best_id, best_score
  for place, want in ipairs(wants) do
    if want.left > 0 then
      local id, score = head(want)
      if id and (not best or score < best_score or score == best_score and id < best_id) then
        best, best_id, best_score = place, id, score
      end
    end
  end
  return best, best_id
end

-- Chosen first, written then: nothing is changed before everything is known to be readable.
local chosen, bodies, bytes, looked = {}, {}, 0, 0
while #chosen < max and looked < 256 do
  local place, id = first()
  if not place then break end
  looked = looked + 1
  local want = wants[place]
  local index = 'queued:' .. want.name
  local f = read(id, 's', 't', 'w', 'n', 'tp', 'ts')
  local g = f[4] and read(id, 'a', 'rs', 'tk', 'sd', 'r', 'sp') or {} -- Nothing happened to it yet, as to most.
  local created, _, _, _, _, size = terms(f[3])
  local attempt, version, since = whole(g[1] or '0'), whole(f[4] or '1'), whole(g[2] or created)
  if f[1] ~= '0' or f[2] ~= want.name then
    drop_misplaced(index, id)
    want.from = want.from - 1
  elseif not (size and attempt and version and since) then
    quarantine(index, id, 'a field cannot be read')
    want.from = want.from - 1
  else
    if bytes + size > max_bytes and #chosen > 0 then break end
    bytes = bytes + size
    want.left = want.left - 1
    chosen[#chosen + 1] = {id = id, place = place, attempt = attempt + 1, version = text(version + 1), since = since, terms = f[3],
      parent = f[5] or '', state = f[6] or '', before = g}
    bodies[#bodies + 1] = ns .. 'body:' .. id
  end
  want.at = want.at + 2
end

local attempts = {}

-- Another attempt after the first: what is known of the claim before, and what its worker told.
local function again(job, one)
  local before, led_to = one.before[3], one.before[4]
  -- It stays known, if it settled: a repeat of that may come late.
  local known = before and before ~= '' and led_to and led_to ~= ''
  call('HSET', job, 's', '2', 'a', text(one.attempt), 'st', now_text, 'n', one.version, 'tk', token, 'sd', '', 'lt',
    known and before or '', 'ls', known and led_to or '')
  call('HDEL', job, 'pc', 'pt', 'pp', 'pm', 'pu')
  return whole(one.before[5]) or 0, one.before[6] or ''
end

if chosen[1] then
  local payloads = call('MGET', unpack(bodies))
  local lease_text = text(now + lease)
  for at, one in ipairs(chosen) do
    local id, attempt, since, name = one.id, one.attempt, one.since, wants[one.place].name
    if not payloads[at] then
      quarantine('queued:' .. name, id, 'it has no payload')
    else
      local job, retries, span = ns .. 'job:' .. id, 0, ''
      if attempt == 1 then
        call('HSET', job, 's', '2', 'a', '1', 'st', now_text, 'n', one.version, 'tk', token)
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
      attempts[#attempts + 1] = {id, one.place, attempt, retries, one.terms, payloads[at], since, one.parent, one.state, span}
    end
  end
  flush()
end

local wait = -1
for _, want in ipairs(wants) do
  local left = want.at <= #want.heads or not want.drained and shared('ZCARD', 'queued:' .. want.name) > 0
  if left or want.due and want.due <= now then
    wait = 0
    break
  end
  if want.due and (wait < 0 or want.due - now < wait) then wait = want.due - now end
end
return {now, wait, attempts}
