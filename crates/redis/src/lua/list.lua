-- Returns a part of a list of jobs, without their results.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 index, 3 state (empty: any), 4 newest first (1 or empty), 5 when the first page was read (0: this is
--             the first page), 6 score and 7 id of the last entry before (empty: none), 8 at most this many entries, 9 at most
--             this many jobs, 10 type and 11 owner (empty: all)
-- Result      {now, score and id of the last entry (empty: the end), jobs}; a job is {id, fields, outcome, attempts}
-- Cost        O(log n) and 3 commands for each type, 4 for each job

local index, status, newest, since = ARGV[2], ARGV[3], ARGV[4] == '1', tonumber(ARGV[5])
local after_score, after_id, limit, wanted = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local type_name, owner = ARGV[10], ARGV[11]
local names = index == 'owned:' and {owner} or type_name ~= '' and {type_name} or call('SMEMBERS', ns .. 'types')

local ID = '^' .. ('%x'):rep(8) .. ('%-' .. ('%x'):rep(4)):rep(3) .. '%-' .. ('%x'):rep(12) .. '$'

-- A score that a cursor can hold.
local function clamp(score) return math.floor(math.max(math.min(tonumber(score), 9007199254740991), 0)) end

-- Replaces the error of a key of another type, so that the job alone cannot be read.
local function or_else(value, unreadable) return type(value) == 'table' and value.err and unreadable or value end

local function before(a, b)
  if a.score ~= b.score then return (a.score < b.score) ~= newest end
  return a.id ~= b.id and (a.id < b.id) ~= newest
end

-- Reads the entries of one index behind the last one. Entries with the last one's score are few and skipped one by one.
local function entries(name)
  local key, found, from = ns .. index .. name, {}, 0
  local last = after_score and {score = after_score, id = after_id}
  if last then
    local bound = string.format('(%.0f', after_score)
    from = newest and call('ZCOUNT', key, bound, '+inf') or call('ZCOUNT', key, '-inf', bound)
  end
  while #found < limit do
    local part
    if newest then
      part = call('ZRANGE', key, from, from + limit - 1, 'REV', 'WITHSCORES')
    else
      part = call('ZRANGE', key, from, from + limit - 1, 'WITHSCORES')
    end
    for at = 1, #part, 2 do
      local entry = {id = part[at], score = clamp(part[at + 1])}
      if (not last or before(last, entry)) and entry.id:match(ID) then found[#found + 1] = entry end
    end
    if #part < 2 * limit then break end
    from = from + limit
  end
  return found
end

local all = {}
for _, name in ipairs(names) do
  for _, entry in ipairs(entries(name)) do all[#all + 1] = entry end
end
table.sort(all, before)

local jobs, last = {}, nil
for at = 1, math.min(#all, limit) do
  last = all[at]
  local id = last.id
  local f = read(id, 's', 'en', 'w', 'e', 'st', 't', 'o')
  local ended, kept = whole(f[2]), f[2] and retention(f[3])
  local expired = ended and kept and ended + kept <= now
  local entered = f[2] or f[1] == '2' and f[5] or f[4] or terms(f[3])
  local moved = status ~= '' and (f[1] ~= status or since > 0 and (whole(entered) or 0) > since)
  local foreign = owner ~= '' and (f[1] == '9' or f[7] ~= owner or type_name ~= '' and f[6] ~= type_name)
  if f[1] and not expired and not moved and not foreign then
    jobs[#jobs + 1] = {id, call('HGETALL', ns .. 'job:' .. id), f[1] ~= '3' and or_else(redis.pcall('GET', ns .. 'end:' .. id), ''),
      or_else(redis.pcall('LRANGE', ns .. 'past:' .. id, 0, -1), {''})}
  end
  if #jobs == wanted then break end
end
if #all < limit and #jobs < wanted then last = nil end
return {now, last and string.format('%.0f', last.score) or '', last and last.id or '', jobs}
