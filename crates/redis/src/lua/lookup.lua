-- What is known of an id: {0} nothing, {1, owner} its retention is over, {2, id, fields, outcome, attempts, ahead} the job.
local function lookup(id)
  local job = ns .. 'job:' .. id
  -- Whoever asks for a job that cannot be read is told so: nothing here goes on without what it needs.
  local f = call('HMGET', job, 's', 't', 'en', 'w', 'gu', 'o')
  if f[5] then
    return now < tonumber(f[5]) and {1, f[6] or ''} or {0}
  end
  if not f[1] then return {0} end
  local ended, kept = whole(f[3]), f[3] and retention(f[4])
  if ended and kept and ended + kept <= now then return now < ended + 2 * kept and {1, f[6] or ''} or {0} end
  local ahead = f[1] == '0' and f[2] and call('ZRANK', ns .. 'queued:' .. f[2], id) or -1
  return {2, id, call('HGETALL', job), call('GET', ns .. 'end:' .. id), call('LRANGE', ns .. 'past:' .. id, 0, -1), ahead}
end
