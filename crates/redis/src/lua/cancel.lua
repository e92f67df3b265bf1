-- Cancels a job that does not run; requests the cancellation of a job that runs.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 the error of a canceled job
-- Result      {outcome, lookup}: 0 canceled, 1 requested, 2 it had ended before, 3 not found or past its retention
-- Cost        O(log n) and about 12 commands

local id = ARGV[2]
local found = lookup(id)
if found[1] ~= 2 then return {3, found} end
local job = ns .. 'job:' .. id
local f = read(id, 's', 't', 'n', 'cr', 'w')
local before = whole(f[3] or '1')
-- The answer is read after the change and needs the terms, so they are checked first.
if not (f[2] and before and terms(f[5])) then return unreadable(id) end
local version = before + 1
if f[1] == '0' or f[1] == '1' then
  local order, name = next_order(), f[2]
  call('HSET', job, 's', 5, 'd', order, 'en', now_text, 'n', version)
  call('SET', ns .. 'end:' .. id, ARGV[3])
  rem((f[1] == '0' and 'queued:' or 'scheduled:') .. name, id)
  add('canceled:' .. name, order, id)
  if f[1] == '1' then call('SREM', ns .. 'delayed:' .. name, id) end
  count(name .. '|e5', 1)
  changed[1] = id
  flush()
  return {0, lookup(id)}
end
if f[1] ~= '2' then return {2, found} end
if not f[4] then
  call('HSET', job, 'cr', now, 'n', version, 'u', now)
  changed[1] = id
  flush()
end
return {1, lookup(id)}
