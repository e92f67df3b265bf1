-- Accepts jobs. One call serves all callers that insert at the same time.
--
-- Keys        1 the namespace
-- Arguments   1 now (0: the server's clock), 2 fields per job, then for each job: id, type, key, owner, fingerprint, its terms
--             from the priority on, delay, queue limit (-1: none), traceparent, tracestate, payload, owner's name
-- Result      for each job: {0, created, ahead (-1: scheduled)} inserted · {1, lookup} existing · {2} conflict · {3} full ·
--             {4} existing, and it cannot be read
-- Cost        O(log n) and about 13 commands for a job; 3 and the job's own for each further one

local stride = tonumber(ARGV[2])
local terms_prefix = '1 ' .. now_text .. ' '
local types, answers, queued = {}, {}, {}

local function type_named(name)
  local found = types[name]
  if not found then
    found = {queued = call('ZCARD', ns .. 'queued:' .. name), delayed = call('SCARD', ns .. 'delayed:' .. name)}
    found.known = found.queued + found.delayed > 0
    types[name] = found
  end
  return found
end

-- Fingerprint and owner of the job with this id; nil if there is none or its time is over. A job that cannot be read has
-- neither, so that it conflicts with every submission.
local function identity(id)
  if call('EXISTS', ns .. 'job:' .. id) == 0 then return end
  local f = read(id, 'f', 'o', 'fg')
  if not (f[3] and (whole(f[3]) or 0) <= now) then return f end
  call('DEL', ns .. 'job:' .. id)
end

local function existing(id, known, owner, fingerprint)
  if known[1] ~= fingerprint or (known[2] or '') ~= owner then return {2} end
  flush() -- The job may have been inserted by this call.
  -- An error of this job must not fail the other callers.
  local readable, found = pcall(lookup, id)
  if not readable then return {4} end
  -- A tombstone prevents a second run for longer than readers can see the job.
  return {1, found[1] == 0 and {1, owner} or found}
end

local function insert(at)
  local id, name, key, owner, fingerprint = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local record = key ~= '' and ns .. 'key:' .. name .. ':' .. owner .. ':' .. key
  if record then
    local first = call('GET', record)
    local known = first and identity(first)
    if known then return existing(first, known, owner, fingerprint) end
  end
  local known = identity(id)
  if known then
    -- A job keeps the key that it was made with, or none.
    return record and {2} or existing(id, known, owner, fingerprint)
  end
  local of, limit = type_named(name), tonumber(ARGV[at + 7])
  if limit >= 0 and of.queued + of.delayed >= limit then return {3} end

  local job_terms, delay, payload, order = ARGV[at + 5], tonumber(ARGV[at + 6]), ARGV[at + 10], next_order()
  local fields = {'t', name, 's', delay > 0 and '1' or '0', 'w', terms_prefix .. job_terms, 'f', fingerprint, 'd', text(order)}
  local last = #fields
  local function also(field, value)
    fields[last + 1], fields[last + 2] = field, value
    last = last + 2
  end
  if owner ~= '' then also('o', owner) end
  if ARGV[at + 11] ~= '' then also('ol', ARGV[at + 11]) end
  if record then also('k', key) end
  if ARGV[at + 8] ~= '' then also('tp', ARGV[at + 8]) end
  if ARGV[at + 9] ~= '' then also('ts', ARGV[at + 9]) end
  if delay > 0 then
    also('rs', now + delay)
    also('du', now + delay)
  end
  call('HSET', ns .. 'job:' .. id, unpack(fields))
  set(ns .. 'body:' .. id, payload)
  if record then call('SET', record, id) end -- Not collected: the next job of this call may have the same key.
  if not of.known then
    call('SADD', ns .. 'types', name)
    of.known = true
  end
  add('accepted:' .. name, text(order), id)
  if owner ~= '' then add('owned:' .. owner, text(order), id) end
  count(name .. '|new', 1)
  if delay > 0 then
    add('scheduled:' .. name, now + delay, id)
    call('SADD', ns .. 'delayed:' .. name, id)
    of.delayed = of.delayed + 1
    return {0, now, -1}
  end
  local priority = job_terms:sub(1, 1)
  add('queued:' .. name, text(ready_score(priority, order)), id)
  of.queued = of.queued + 1
  local answer = {0, now}
  queued[#queued + 1] = {answer = answer, id = id, name = name, line = name .. ' ' .. priority}
  return answer
end

for at = 3, #ARGV, stride do answers[#answers + 1] = insert(at) end
flush()

-- New jobs of one type and priority are neighbors in the queue, so only the first needs its rank read.
local ranks = {}
for _, one in ipairs(queued) do
  ranks[one.line] = ranks[one.line] and ranks[one.line] + 1 or call('ZRANK', ns .. 'queued:' .. one.name, one.id) or 0
  one.answer[3] = ranks[one.line]
end
return answers
