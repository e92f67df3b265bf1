-- What is known of an id: {0} nothing, {1, owner} its retention is over, {2, id, fields, outcome, attempts, ahead} the job.
local function lookup(id)
  local job = ns .. 'job:' .. id
  -- Whoever asks for a job that cannot be read is told so: nothing here goes on without what it needs.
  local f = call('HMGET', job, 's', 't', 'en', 'w', 'gu', 'o')
  if f[5] then
    return now < tonumber(f[5]) and {1, f[6] or ''} or {0}
  end
  if not f[1] then return {0} end
  local ended = tonumber(f[3])
  if ended then
    local kept = retention(f[4])
    if ended + kept <= now then return now < ended + 2 * kept and {1, f[6] or ''} or {0} end
  end
  local ahead = f[1] == '0' and f[2] and call('ZRANK', ns .. 'queued:' .. f[2], id) or -1
  return {2, id, call('HGETALL', job), call('GET', ns .. 'end:' .. id), call('LRANGE', ns .. 'past:' .. id, 0, -1), ahead}
end
