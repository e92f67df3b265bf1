-- Looks a job up: {0} not found, {1, owner} past its retention, {2, id, fields, outcome, attempts, ahead} found. Fails if a
-- key of the job has another type.
local function lookup(id)
  local job = ns .. 'job:' .. id
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
