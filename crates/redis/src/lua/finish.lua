-- Ends a running attempt, and its job if that follows: `lifecycle::next`, in Lua.
local INDEX = {[3] = 'completed:', [4] = 'failed:', [5] = 'canceled:'}
local COMPLETED, RETRIED, FAILED, CANCELED, RELEASED, LOST = 0, 1, 2, 3, 4, 5

-- What `finish` needs of a job; nothing if that cannot be read.
local function running(id)
  local f = read(id, 's', 'tk', 'sd', 'lt', 'ls', 'cr', 't', 'p', 'd', 'a', 'r', 'l', 'ml', 'x', 'st', 'n')
  local job = {status = f[1], token = f[2], settled = f[3], last = f[4], last_settled = f[5], asked = f[6],
    name = f[7], priority = tonumber(f[8]), order = tonumber(f[9]), attempt = tonumber(f[10] or 0),
    retries = tonumber(f[11] or 0), losses = tonumber(f[12] or 0), max_losses = tonumber(f[13]),
    releases = tonumber(f[14] or 0), started = tonumber(f[15] or now), version = tonumber(f[16] or 1)}
  local readable = job.name and job.priority and job.order and job.attempt and job.retries and job.losses
    and job.max_losses and job.releases and job.started and job.version
  return readable and job
end

local function state_after(job, outcome)
  if outcome == COMPLETED then return 3 end
  if job.asked or outcome == CANCELED then return 5 end
  if outcome == RETRIED then return 1 end
  if outcome == FAILED or outcome == LOST and job.losses >= job.max_losses then return 4 end
  return 0
end

-- `value` is the result of a completed attempt, else its error, or nothing. Returns the state that the job went to.
local function finish(id, job, outcome, value, if_canceled, delay, slow, span)
  local key, name = ns .. 'job:' .. id, job.name
  local after = state_after(job, outcome)
  local recorded = after == 5 and CANCELED or outcome
  if after == 5 and job.asked then value = if_canceled end
  local error = after ~= 3 and value ~= '' and value or ''

  local set = {'s', after, 'n', job.version + 1, 'u', now, 'e', now, 'sp', span}
  local function also(field, to)
    set[#set + 1] = field
    set[#set + 1] = to
  end
  if outcome == LOST then
    -- The dead worker's token is worth nothing from here on, whatever it still tries.
    also('tk', '')
    also('sd', '')
    also('l', job.losses + 1)
  else
    also('sd', after)
  end
  rem('running:' .. name, id)
  rem('leased', id)
  if after >= 3 then
    local order = next_order()
    also('d', order)
    also('en', now)
    add(INDEX[after] .. name, order, id)
  else
    local due = now + delay
    also('rs', due)
    if after == 1 then
      also('r', job.retries + 1)
      also('du', due)
      add('scheduled:' .. name, due, id)
    else
      if outcome == RELEASED then also('x', job.releases + 1) end
      add('queued:' .. name, ready_score(job.priority, job.order), id)
    end
  end
  call('HSET', key, unpack(set))
  if after == 3 then
    call('SET', ns .. 'end:' .. id, value)
    call('DEL', ns .. 'body:' .. id) -- Nothing can run it again.
  elseif error ~= '' then
    call('SET', ns .. 'end:' .. id, error)
  end
  -- A job that completed at its first attempt, as most do, has its only record derived.
  if recorded ~= COMPLETED or job.attempt ~= 1 then
    local past = ns .. 'past:' .. id
    local record = string.format('%d %.0f %.0f %d ', job.attempt, job.started, now, recorded) .. error
    if job.attempt > 20 then call('LTRIM', past, -19, -1) end
    call('RPUSH', past, record)
  end

  if outcome == LOST then
    count(name .. '|' .. recorded, 1)
    if after == 4 then count(name .. '|e4', 1) end
  else
    local ran = math.max(now - job.started, 0)
    count(name .. '|' .. recorded .. '|' .. bucket(ran), 1)
    count(name .. '|run', ran)
    if slow then count(name .. '|slow', 1) end
  end
  changed[#changed + 1] = id
  return after
end
