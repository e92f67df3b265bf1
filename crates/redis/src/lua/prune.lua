-- Cuts ended jobs past their retention to tombstones, up to the first of each index that is not. Redis forgets tombstones
-- and keys by itself.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 jobs at most
-- Result      how many
-- Cost        3 commands for each type, 6 for each job

local DAY = 86400000000
local limit, cut = tonumber(ARGV[2]), 0

local function entomb(name, id, f)
  local job, ended, kept = ns .. 'job:' .. id, tonumber(f[2]), tonumber(f[3])
  local gone_until = ended + 2 * kept
  local forget = f[5] and math.max(gone_until, tonumber(f[4]) + DAY) or gone_until
  call('DEL', job, ns .. 'body:' .. id, ns .. 'end:' .. id, ns .. 'past:' .. id, ns .. 'logs:' .. id)
  rem('accepted:' .. name, id)
  local left = math.ceil((forget - now) / 1000)
  local record = f[8] and ns .. 'key:' .. name .. ':' .. (f[6] or '') .. ':' .. f[8]
  -- Another job's, if its own was lost.
  if record and redis.pcall('GET', record) ~= id then record = nil end
  if left <= 0 then
    if record then call('DEL', record) end
    return
  end
  call('HSET', job, 'f', f[7], 'gu', gone_until, 'fg', forget, f[6] and 'o' or 'f', f[6] or f[7])
  call('PEXPIRE', job, string.format('%d', left))
  if record then call('PEXPIRE', record, string.format('%d', left)) end
end

local function prune(index, status, name)
  for _, id in ipairs(shared('ZRANGE', index .. name, 0, limit - cut - 1)) do
    local f = read(id, 's', 'en', 'rt', 'c', 'rp', 'o', 'f', 'k', 't')
    if f[1] ~= status or f[9] ~= name then
      misplaced(index .. name, id)
    elseif tonumber(f[2]) and tonumber(f[3]) and tonumber(f[4]) and f[7] then
      if now < f[2] + f[3] then return end
      entomb(name, id, f)
      rem(index .. name, id)
    else
      put_aside(index .. name, id, 'a field cannot be read')
    end
    cut = cut + 1
  end
end

for _, name in ipairs(shared('SMEMBERS', 'types')) do
  for at, index in ipairs({'completed:', 'failed:', 'canceled:'}) do
    if cut < limit then prune(index, tostring(2 + at), name) end
  end
end
flush()
return cut
