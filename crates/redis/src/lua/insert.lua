-- Accepts jobs: one call for all callers who came at the same time.
--
-- Keys        1 the namespace
-- Arguments   1 now (0: by this server's clock), then for each job: id, type, key, owner, fingerprint, its terms from the
--             priority on, delay, queue limit (-1: none), traceparent, tracestate, payload
-- Result      for each job: {0, created, ahead (-1: scheduled)} inserted · {1, lookup} existing · {2} conflict · {3} full ·
--             {4} existing, and it cannot be read
-- Cost        O(log n) and about 12 commands for a job; 3 and the job's own for each further one

local FIELDS = 11
local accepted = '1 ' .. now_text .. ' '
local kinds, answers, queued = {}, {}, {}

local function kind(name)
  local kind = kinds[name]
  if not kind then
    kind = {queued = shared('ZCARD', 'queued:' .. name), delayed = shared('SCARD', 'delayed:' .. name)}
    kind.known = kind.queued + kind.delayed > 0
    kinds[name] = kind
  end
  return kind
end

-- The job that an id stands for, if it was not forgotten: owner and fingerprint.
local function identity(id)
  if call('EXISTS', ns .. 'job:' .. id) == 0 then return end
  local f = redis.pcall('HMGET', ns .. 'job:' .. id, 'f', 'o', 'fg', 's')
  -- What cannot be read is nobody's: a conflict with all who come.
  if f.err then return {} end
  if not f[1] then return f[4] and {} end
  if not (f[3] and (tonumber(f[3]) or 0) <= now) then return f end
  call('DEL', ns .. 'job:' .. id) -- What is left of one that was forgotten.
end

local function existing(id, known, owner, fingerprint)
  if known[1] ~= fingerprint or (known[2] or '') ~= owner then return {2} end
  flush() -- It may have come with the same call.
  local seen, found = pcall(lookup, id)
  -- It is told alone: whoever came at the same time has nothing to do with it.
  if not seen then return {4} end
  -- Its record outlives the time in which readers are told: a replay is never a second run.
  return {1, found[1] == 0 and {1, owner} or found}
end

local function insert(at)
  local id, name, key, owner, fingerprint = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local record = key ~= '' and ns .. 'key:' .. name .. ':' .. owner .. ':' .. key
  if record then
    local first = redis.pcall('GET', record)
    local known = type(first) == 'string' and identity(first)
    if known then return existing(first, known, owner, fingerprint) end
  end
  local known = identity(id)
  if known then
    -- A new key must not take over a job that was made under another one, or under none.
    return record and {2} or existing(id, known, owner, fingerprint)
  end
  local kind, limit = kind(name), tonumber(ARGV[at + 7])
  if limit >= 0 and kind.queued + kind.delayed >= limit then return {3} end

  local order, delay, payload = next_order(), tonumber(ARGV[at + 6]), ARGV[at + 10]
  local words = ARGV[at + 5]
  local fields = {'t', name, 's', delay > 0 and '1' or '0', 'w', accepted .. words, 'f', fingerprint, 'd', text(order)}
  local last = #fields
  local function also(field, to)
    fields[last + 1], fields[last + 2] = field, to
    last = last + 2
  end
  if owner ~= '' then also('o', owner) end
  if record then also('k', key) end
  if ARGV[at + 8] ~= '' then also('tp', ARGV[at + 8]) end
  if ARGV[at + 9] ~= '' then also('ts', ARGV[at + 9]) end
  if delay > 0 then
    also('rs', now + delay)
    also('du', now + delay)
  end
  call('HSET', ns .. 'job:' .. id, unpack(fields))
  set(ns .. 'body:' .. id, payload)
  if record then call('SET', record, id) end -- At once: the next job may come with the same key.
  if not kind.known then
    shared('SADD', 'types', name)
    kind.known = true
  end
  add('accepted:' .. name, text(order), id)
  if delay > 0 then
    add('scheduled:' .. name, now + delay, id)
    shared('SADD', 'delayed:' .. name, id)
    kind.delayed = kind.delayed + 1
    return {0, now, -1}
  end
  local priority = words:sub(1, 1)
  add('queued:' .. name, text(ready_score(priority, order)), id)
  kind.queued = kind.queued + 1
  local answer = {0, now}
  queued[#queued + 1] = {answer = answer, id = id, name = name, line = name .. ' ' .. priority}
  return answer
end

for at = 2, #ARGV, FIELDS do answers[#answers + 1] = insert(at) end
flush()

-- Those of one type and priority stand one behind the other.
local ranks = {}
for _, one in ipairs(queued) do
  ranks[one.line] = ranks[one.line] and ranks[one.line] + 1 or call('ZRANK', ns .. 'queued:' .. one.name, one.id) or 0
  one.answer[3] = ranks[one.line]
end
return answers
