-- Accepts jobs: one call for all callers who came at the same time.
--
-- Keys        1 the namespace
-- Arguments   1 now (0: by this server's clock), then for each job: id, type, key, owner, fingerprint, repeatable,
--             priority, max retries, max losses, retention, delay, queue limit (-1: none), traceparent, tracestate, payload
-- Result      for each job: {0, created, ahead (-1: scheduled)} inserted · {1, lookup} existing · {2} conflict · {3} full ·
--             {4} existing, and it cannot be read
-- Cost        O(log n) and about 12 commands for a job; 3 and the job's own for each further one

local FIELDS = 15
local kinds, answers = {}, {}

local function kind(name)
  local kind = kinds[name]
  if not kind then
    kind = {queued = call('ZCARD', ns .. 'queued:' .. name), delayed = call('SCARD', ns .. 'delayed:' .. name)}
    kind.known = kind.queued + kind.delayed > 0
    kinds[name] = kind
  end
  return kind
end

-- The job that an id stands for, if it was not forgotten: owner and fingerprint.
local function identity(id)
  local f = redis.pcall('HMGET', ns .. 'job:' .. id, 'f', 'o', 'fg', 's')
  -- What cannot be read is nobody's: a conflict with all who come.
  if f.err then return {} end
  if not f[1] then return f[4] and {} end
  if not (f[3] and (tonumber(f[3]) or 0) <= now) then return f end
  call('DEL', ns .. 'job:' .. id) -- What is left of one that was forgotten.
end

local function existing(id, known, owner, fingerprint)
  if known[1] ~= fingerprint or (known[2] or '') ~= owner then return {2} end
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
  local kind, limit = kind(name), tonumber(ARGV[at + 11])
  if limit >= 0 and kind.queued + kind.delayed >= limit then return {3} end

  local order, delay, payload = next_order(), tonumber(ARGV[at + 10]), ARGV[at + 14]
  local set = {'v', '1', 't', name, 's', delay > 0 and '1' or '0', 'c', now_text, 'p', ARGV[at + 6], 'mr', ARGV[at + 7],
    'ml', ARGV[at + 8], 'rt', ARGV[at + 9], 'f', fingerprint, 'd', order, 'pb', #payload}
  local function also(field, to)
    if to ~= '' then
      set[#set + 1] = field
      set[#set + 1] = to
    end
  end
  also('rp', ARGV[at + 5])
  also('o', owner)
  also('k', key)
  also('tp', ARGV[at + 12])
  also('ts', ARGV[at + 13])
  if delay > 0 then
    also('rs', now + delay)
    also('du', now + delay)
  end
  call('HSET', ns .. 'job:' .. id, unpack(set))
  call('SET', ns .. 'body:' .. id, payload)
  if record then call('SET', record, id) end
  if not kind.known then
    call('SADD', ns .. 'types', name)
    kind.known = true
  end
  call('ZADD', ns .. 'accepted:' .. name, order, id)
  if delay > 0 then
    call('ZADD', ns .. 'scheduled:' .. name, now + delay, id)
    call('SADD', ns .. 'delayed:' .. name, id)
    kind.delayed = kind.delayed + 1
    return {0, now, -1}
  end
  call('ZADD', ns .. 'queued:' .. name, ready_score(tonumber(ARGV[at + 6]), order), id)
  if kind.queued == 0 then woken[#woken + 1] = 'w' .. name end
  kind.queued = kind.queued + 1
  return {0, now, call('ZRANK', ns .. 'queued:' .. name, id)}
end

for at = 2, #ARGV, FIELDS do answers[#answers + 1] = insert(at) end
flush()
return answers
