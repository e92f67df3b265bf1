-- Makes a new job out of one that failed or was canceled, once. The job's own key is not copied.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id, 3 the new id, 4 traceparent, 5 tracestate
-- Result      {what, lookup}: 0 created, 1 it was repeated before, 2 it is in another state, 3 the new id is taken,
--             4 there is none, 5 its payload is not there
-- Cost        O(log n) and about 16 commands

local id, again = ARGV[2], ARGV[3]
local found = lookup(id)
if found[1] ~= 2 then return {4, found} end
local job, new = ns .. 'job:' .. id, ns .. 'job:' .. again
local f = read(id, 's', 't', 'n', 'rb', 'w', 'f', 'o')
local _, priority, max_retries, max_losses, kept, size = terms(f[5])
if not (f[2] and whole(f[3] or '1') and size and f[6]) then return unreadable(id) end
if f[4] then return {1, lookup(f[4])} end
if f[1] ~= '4' and f[1] ~= '5' then return {2, found} end
local taken = read(again, 'f', 'fg')
local forgotten = whole(taken[2])
if taken[1] and not (forgotten and forgotten <= now) then return {3, found} end
if call('TYPE', ns .. 'body:' .. id).ok ~= 'string' then return {5, found} end

local order, name = next_order(), f[2]
local again_terms = table.concat({1, now_text, priority, max_retries, max_losses, kept, size, 0}, ' ')
local set = {'t', name, 's', 0, 'w', again_terms, 'f', f[6], 'd', order, 'ro', id}
local function also(field, to)
  if to and to ~= '' then
    set[#set + 1] = field
    set[#set + 1] = to
  end
end
also('o', f[7])
also('tp', ARGV[4])
also('ts', ARGV[5])
-- What is left of one of that id, of whatever type, would be in the way when all is written.
call('DEL', new, ns .. 'end:' .. again, ns .. 'past:' .. again)
call('HSET', new, unpack(set))
call('COPY', ns .. 'body:' .. id, ns .. 'body:' .. again, 'REPLACE')
add('accepted:' .. name, order, again)
add('queued:' .. name, ready_score(priority, order), again)
-- Its version moves, and nothing else that a client sees: it ended when it ended.
call('HSET', job, 'rb', again, 'n', whole(f[3] or '1') + 1)
changed[1] = id
flush()
return {0, lookup(again)}
