-- Ends a running attempt. This is `lifecycle` of the core crate, in Lua; the conformance suite compares the two.
local INDEX = {[3] = 'completed:', [4] = 'failed:', [5] = 'canceled:'}
local COMPLETED, RETRIED, FAILED, CANCELED, RELEASED, LOST = '0', '1', '2', '3', '4', '5'

-- Reads the fields that every outcome needs. Redis searches a hash once per field, so `go_on` reads the rest.
local function running(id)
  local f = read(id, 's', 'tk', 't', 'st', 'cr', 'a', 'n', 'wk')
  return {status = f[1], token = f[2], name = f[3], started = whole(f[4]), cancel_requested = f[5],
    attempt = whole(f[6] or '0'), version = whole(f[7] or '1'), worker = f[8] or ''}
end

local function state_after(job, outcome, losses, max_losses)
  if outcome == COMPLETED then return 3 end
  if job.cancel_requested or outcome == CANCELED then return 5 end
  if outcome == RETRIED then return 1 end
  if outcome == FAILED or outcome == LOST and losses >= max_losses then return 4 end
  return 0
end

-- Appends the changes of a job that did not complete to `fields`. Returns its new state; nil if it cannot be read.
local function go_on(id, job, outcome, fields, delay)
  local f = read(id, 'w', 'd', 'l', 'r', 'x')
  local _, priority, _, max_losses = terms(f[1])
  local order, losses, retries, releases = whole(f[2]), whole(f[3] or '0'), whole(f[4] or '0'), whole(f[5] or '0')
  if not (priority and order and losses and retries and releases) then return end
  local after = state_after(job, outcome, losses, tonumber(max_losses))
  local function also(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if outcome == LOST then
    -- The lost worker's token must not match any more.
    also('tk', '')
    also('l', losses + 1)
  end
  if after < 3 then
    local due = now + delay
    also('u', now_text)
    also('e', now_text)
    also('rs', due)
    if after == 1 then
      also('r', retries + 1)
      also('du', due)
      add('scheduled:' .. job.name, due, id)
    else
      if outcome == RELEASED then also('x', releases + 1) end
      add('queued:' .. job.name, ready_score(priority, order), id)
    end
  end
  return after
end

local function record_attempt(id, job, recorded, error)
  local past = ns .. 'past:' .. id
  if job.attempt > 20 then redis.pcall('LTRIM', past, -19, -1) end
  redis.pcall('RPUSH', past, string.format('%d %d %s %s ', job.attempt, job.started, now_text, recorded) .. job.worker .. ' ' .. error)
end

-- `value` is the result of a completed attempt, else its error or empty. `progress` may be empty. Returns the job's new
-- state; nil if the job cannot be read.
local function finish(id, job, outcome, value, if_canceled, delay, slow, span, progress)
  local name = job.name
  if not (name and job.started and job.attempt and job.version) then return end
  local fields, after, recorded = {'n', text(job.version + 1)}, 3, COMPLETED
  if outcome ~= COMPLETED then
    after = go_on(id, job, outcome, fields, delay)
    if not after then return end
    recorded = after == 5 and CANCELED or outcome
  end
  local last = #fields
  fields[last + 1], fields[last + 2] = 's', text(after)
  -- A settlement that ended the job needs no record of its answer: the state stays.
  if after < 3 or outcome == LOST then
    fields[last + 3], fields[last + 4] = 'sd', outcome == LOST and '' or text(after)
    last = last + 2
  end
  -- Later attempts overwrite the span of the attempt before.
  if span ~= '' or job.attempt > 1 then fields[last + 3], fields[last + 4] = 'sp', span end
  rem('running:' .. name, id)
  rem('leased', id)
  if after >= 3 then
    local order = text(next_order())
    last = #fields
    fields[last + 1], fields[last + 2], fields[last + 3], fields[last + 4] = 'd', order, 'en', now_text
    add(INDEX[after] .. name, order, id)
  end
  if progress ~= '' then add_progress(fields, progress) end
  call('HSET', ns .. 'job:' .. id, unpack(fields))
  if after == 3 then
    set(ns .. 'end:' .. id, value)
    dels[#dels + 1] = ns .. 'body:' .. id -- A completed job cannot run again.
    -- Readers derive the only attempt of a job that completed at its first.
    if job.attempt ~= 1 then record_attempt(id, job, recorded, '') end
  else
    local error = after == 5 and job.cancel_requested and if_canceled or value
    if error ~= '' then set(ns .. 'end:' .. id, error) end
    record_attempt(id, job, recorded, error)
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
