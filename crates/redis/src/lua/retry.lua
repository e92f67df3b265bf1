-- Makes a new job from a failed or canceled one. A repeat returns the job made before. The idempotency key is not copied.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 the new id, 4 traceparent, 5 tracestate
-- Result      {outcome, lookup}: 0 created, 1 created before, 2 the job has not ended or has completed, 3 the new id is taken,
--             4 not found or past its retention, 5 its payload is missing
-- Cost        O(log n) and about 17 commands

local id, new_id = ARGV[2], ARGV[3]
local found = lookup(id)
if found[1] ~= 2 then return {4, found} end
local job, new = ns .. 'job:' .. id, ns .. 'job:' .. new_id
local f = read(id, 's', 't', 'n', 'rb', 'w', 'f', 'o', 'ol')
local _, priority, max_retries, max_losses, kept, size = terms(f[5])
if not (f[2] and whole(f[3] or '1') and size and f[6]) then return unreadable(id) end
if f[4] then return {1, lookup(f[4])} end
if f[1] ~= '4' and f[1] ~= '5' then return {2, found} end
local taken = read(new_id, 'f', 'fg')
local forgotten = whole(taken[2])
if taken[1] and not (forgotten and forgotten <= now) then return {3, found} end
if call('TYPE', ns .. 'body:' .. id).ok ~= 'string' then return {5, found} end

local order, name = next_order(), f[2]
local new_terms = table.concat({1, now_text, priority, max_retries, max_losses, kept, size, 0}, ' ')
local set = {'t', name, 's', 0, 'w', new_terms, 'f', f[6], 'd', order, 'ro', id}
local function also(field, value)
  if value and value ~= '' then
    set[#set + 1] = field
    set[#set + 1] = value
  end
end
also('o', f[7])
also('ol', f[8])
also('tp', ARGV[4])
also('ts', ARGV[5])
-- Remains of a forgotten job with the new id, which may be of another Redis type.
call('DEL', new, ns .. 'end:' .. new_id, ns .. 'past:' .. new_id)
call('HSET', new, unpack(set))
call('COPY', ns .. 'body:' .. id, ns .. 'body:' .. new_id, 'REPLACE')
add('accepted:' .. name, order, new_id)
if f[7] then add('owned:' .. f[7], order, new_id) end
count(name .. '|new', 1)
add('queued:' .. name, ready_score(priority, order), new_id)
-- Only the version and the link change: the times of the ended job stay.
call('HSET', job, 'rb', new_id, 'n', whole(f[3] or '1') + 1)
changed[1] = id
flush()
return {0, lookup(new_id)}
