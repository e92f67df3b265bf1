-- Returns counts, ages and workers. Counts are the sizes of indexes and ages come from their heads; no script scans all jobs.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 fields per type, then for each type with cutoffs: name, slow after, overdue after, stuck after
-- Result      {now, workers, quarantined, repaired, types}; a type is {name, six counts, never started, oldest runnable and
--             oldest running (0: none), slow, overdue, stale, unrecovered}; a worker is its record
-- Cost        about 12 commands for each type, 1 for each lease that expired long ago (at most 1 000)

local HEADS, COUNTED = 16, 1000
local INDEXES = {'queued:', 'scheduled:', 'running:', 'completed:', 'failed:', 'canceled:'}
local cutoffs = {}
for at = 3, #ARGV, tonumber(ARGV[2]) do
  cutoffs[ARGV[at]] = {slow = now - ARGV[at + 1], overdue = now - ARGV[at + 2], stuck = now - ARGV[at + 3]}
end

local function since(id)
  local f = read(id, 'rs', 'w')
  return whole(f[1] or terms(f[2])) or now
end

-- Calls `visit` with the lowest score of each priority that has jobs.
local function by_priority(queue, visit)
  local from, over = 0, string.format('(%.0f', 10 * SPAN)
  while true do
    local head = call('ZRANGE', queue, string.format('%.0f', from), over, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    if not head[1] then return end
    local first = math.floor(tonumber(head[2]) / SPAN) * SPAN
    visit(first)
    from = first + SPAN
  end
end

local function oldest_runnable(name)
  local queue, oldest = ns .. 'queued:' .. name
  by_priority(queue, function(first)
    local heads = call('ZRANGE', queue, string.format('%.0f', first), string.format('(%.0f', first + SPAN), 'BYSCORE',
      'LIMIT', 0, HEADS, 'WITHSCORES')
    for at = 1, #heads, 2 do
      -- A job becomes runnable at the time in its order number or later, give or take 10 ms.
      local least = (heads[at + 1] - first) / 256 * 1000 + 1735689600000000 - 10000
      if oldest and least > oldest then return end
      oldest = math.min(oldest or now, since(heads[at]))
    end
  end)
  local due = call('ZRANGE', ns .. 'scheduled:' .. name, 0, 0, 'WITHSCORES')
  if due[1] and tonumber(due[2]) <= now then oldest = math.min(oldest or now, tonumber(due[2])) end
  return oldest or 0
end

-- Counts jobs that have been runnable since before `stuck`: few by their fields, many by the times in their order numbers.
local function stale(name, stuck)
  local queue, stale = ns .. 'queued:' .. name, 0
  by_priority(queue, function(first)
    local from, to = string.format('%.0f', first), string.format('(%.0f', first + order_at(stuck) + 256)
    local some = call('ZCOUNT', queue, from, to)
    if some <= 4 * HEADS then
      for _, id in ipairs(call('ZRANGE', queue, from, to, 'BYSCORE', 'LIMIT', 0, 4 * HEADS)) do
        if since(id) < stuck then stale = stale + 1 end
      end
    else
      stale = stale + some
    end
  end)
  return stale + call('ZCOUNT', ns .. 'scheduled:' .. name, '-inf', string.format('(%.0f', stuck))
end

local unrecovered = {}
if next(cutoffs) then
  local latest
  for _, cutoff in pairs(cutoffs) do latest = math.max(latest or cutoff.stuck, cutoff.stuck) end
  local expired = call('ZRANGE', ns .. 'leased', '-inf', string.format('(%.0f', latest), 'BYSCORE', 'LIMIT', 0, COUNTED, 'WITHSCORES')
  for at = 1, #expired, 2 do
    local name = read(expired[at], 't')[1]
    if name and cutoffs[name] and tonumber(expired[at + 1]) < cutoffs[name].stuck then
      unrecovered[name] = (unrecovered[name] or 0) + 1
    end
  end
end

local function older(name, than) return call('ZCOUNT', ns .. 'running:' .. name, '-inf', string.format('(%.0f', than)) end

local types = {}
for _, name in ipairs(call('SMEMBERS', ns .. 'types')) do
  local of, cutoff = {name}, cutoffs[name]
  for _, index in ipairs(INDEXES) do of[#of + 1] = call('ZCARD', ns .. index .. name) end
  of[8] = call('SCARD', ns .. 'delayed:' .. name)
  of[9] = oldest_runnable(name)
  of[10] = tonumber(call('ZRANGE', ns .. 'running:' .. name, 0, 0, 'WITHSCORES')[2] or 0)
  of[11] = cutoff and older(name, cutoff.slow) or 0
  of[12] = cutoff and older(name, cutoff.overdue) or 0
  of[13] = cutoff and stale(name, cutoff.stuck) or 0
  of[14] = unrecovered[name] or 0
  types[#types + 1] = of
end

local workers = {}
for _, worker in ipairs(call('ZRANGE', ns .. 'heartbeats', string.format('(%.0f', now), '+inf', 'BYSCORE')) do
  workers[#workers + 1] = call('HGET', ns .. 'workers', worker) or ''
end
return {now, workers, call('HLEN', ns .. 'quarantine'), whole(call('HGET', ns .. 'meta', 'repaired')) or 0, types}
