-- Cuts jobs past their retention to tombstones. Stops in each index at the first job that is not past it. Redis deletes
-- tombstones and their keys when their time is over.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 at most this many jobs
-- Result      number of jobs cut or dropped from an index
-- Cost        3 commands for each type, 6 for each job

local DAY = 86400000000
local limit, cut = tonumber(ARGV[2]), 0

local function entomb(name, id, f)
  local job, created, _, _, _, kept, _, repeatable = ns .. 'job:' .. id, terms(f[3])
  local gone_until = f[2] + 2 * kept
  local forget = repeatable == '1' and math.max(gone_until, created + DAY) or gone_until
  call('DEL', job, ns .. 'body:' .. id, ns .. 'end:' .. id, ns .. 'past:' .. id, ns .. 'logs:' .. id)
  rem('accepted:' .. name, id)
  if f[4] then rem('owned:' .. f[4], id) end
  local left = math.ceil((forget - now) / 1000)
  local record = f[6] and ns .. 'key:' .. name .. ':' .. (f[4] or '') .. ':' .. f[6]
  -- The record may have been lost and made again for another job.
  if record and redis.pcall('GET', record) ~= id then record = nil end
  if left <= 0 then
    if record then call('DEL', record) end
    return
  end
  call('HSET', job, 'f', f[5], 'gu', gone_until, 'fg', forget, f[4] and 'o' or 'f', f[4] or f[5])
  call('PEXPIRE', job, string.format('%d', left))
  if record then call('PEXPIRE', record, string.format('%d', left)) end
end

local function prune(index, status, name)
  for _, id in ipairs(call('ZRANGE', ns .. index .. name, 0, limit - cut - 1)) do
    local f = read(id, 's', 'en', 'w', 'o', 'f', 'k', 't')
    local kept = retention(f[3])
    if f[1] ~= status or f[7] ~= name then
      drop_misplaced(index .. name, id)
    elseif whole(f[2]) and kept and f[5] then
      if now < f[2] + kept then return end
      entomb(name, id, f)
      rem(index .. name, id)
    else
      quarantine(index .. name, id, 'a field cannot be read')
    end
    cut = cut + 1
  end
end

for _, name in ipairs(call('SMEMBERS', ns .. 'types')) do
  for at, index in ipairs({'completed:', 'failed:', 'canceled:'}) do
    if cut < limit then prune(index, tostring(2 + at), name) end
  end
end
flush()
return cut
