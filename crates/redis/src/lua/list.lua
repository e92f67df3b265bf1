-- Returns a part of a list of jobs, without their results.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 index, 3 state (empty: any), 4 newest first (1 or empty), 5 when the first page was read (0: this is
--             the first page), 6 score and 7 id of the last entry before (empty: none), 8 at most this many entries, 9 at most
--             this many jobs. Filters, empty if not set: 10 type, 11 owner, 12 accepted at or after, 13 accepted before,
--             14 by how much order numbers may be ahead of the acceptance, 15 `=` and error code, 16 text in lower case
-- Result      {now, score and id of the last entry (empty: the end), jobs, number of entries}; a job is {id, fields, outcome,
--             attempts}
-- Cost        O(log n) and 2 commands for each type, 1 more for each further part of its entries, 1 for each entry, 1 more
--             with a code or text, 3 more for each job

local index, status, newest, since = ARGV[2], ARGV[3], ARGV[4] == '1', tonumber(ARGV[5])
local after_score, after_id, limit, wanted = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local type_name, owner = ARGV[10], ARGV[11]
local accepted_from, accepted_before, code, needle = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[15], ARGV[16]
local names = index == 'owned:' and {owner} or type_name ~= '' and {type_name} or call('SMEMBERS', ns .. 'types')
-- The scores of a list by acceptance are order numbers, so the times of a filter bound them.
local lowest = status == '' and accepted_from and order_at(accepted_from) or 0
local highest = status == '' and accepted_before and order_at(accepted_before + tonumber(ARGV[14]))

local ID = '^' .. ('%x'):rep(8) .. ('%-' .. ('%x'):rep(4)):rep(3) .. '%-' .. ('%x'):rep(12) .. '$'

-- A score that a cursor can hold.
local function clamp(score) return math.floor(math.max(math.min(tonumber(score), 9007199254740991), 0)) end

-- Replaces the error of a key of another type, so that the job alone cannot be read.
local function or_else(value, unreadable) return type(value) == 'table' and value.err and unreadable or value end

local function before(a, b)
  if a.score ~= b.score then return (a.score < b.score) ~= newest end
  return a.id ~= b.id and (a.id < b.id) ~= newest
end

-- The last entry that was checked.
local last = after_score and {score = after_score, id = after_id}
-- Entries of an index that are read at once. Most often, a list takes about as many of each type.
local size = math.min(limit, math.ceil(limit / #names) + 8)

-- Opens one index behind the last entry: a part of its entries, the place in that part, and the rank of the next part.
local function open(name)
  local list, first = {key = ns .. index .. name, part = {}, at = 1, from = 0}, after_score or highest
  if first then
    local bound = string.format('(%.0f', first)
    list.from = newest and call('ZCOUNT', list.key, bound, '+inf') or call('ZCOUNT', list.key, '-inf', bound)
  end
  return list
end

-- Moves to the next entry of an index behind the last one; false at the end. Entries with the last one's score are few and
-- skipped one by one.
local function advance(list)
  while true do
    if list.at > #list.part then
      local to = list.from + size - 1
      list.part = newest and call('ZRANGE', list.key, list.from, to, 'REV', 'WITHSCORES')
        or call('ZRANGE', list.key, list.from, to, 'WITHSCORES')
      list.at, list.from = 1, to + 1
    end
    local id, score = list.part[list.at], list.part[list.at + 1]
    if not id then return false end
    local entry = {id = id, score = clamp(score)}
    if entry.score < lowest then return false end
    list.at = list.at + 2
    if (not last or before(last, entry)) and id:match(ID) then
      list.head = entry
      return true
    end
  end
end

local function contains(value) return type(value) == 'string' and value:lower():find(needle, 1, true) end

-- Returns the error that readers of a job get.
local function error_of(id, state)
  local stored = state ~= '3' and redis.pcall('GET', ns .. 'end:' .. id)
  local decoded, err = pcall(cjson.decode, type(stored) == 'string' and stored or '{}')
  return decoded and type(err) == 'table' and err or {}
end

-- Whether a job matches the filters by time of acceptance, error code and text.
local function matches(id, f)
  local created = whole((terms(f[3])))
  if accepted_from and (created or 0) < accepted_from or accepted_before and (created or 0) >= accepted_before then
    return false
  end
  if code == '' and needle == '' then return true end
  local err = error_of(id, f[1])
  if code ~= '' and err.code ~= code:sub(2) then return false end
  -- A message is stored behind `=`, and shown if it has a time.
  local message = (f[8] or '') ~= '' and f[9]
  return needle == '' or contains(id) or contains(err.detail) or message and contains(message:sub(2))
end

-- Each index is sorted, so the next entry of all is the first of their heads.
local lists = {}
for _, name in ipairs(names) do
  local list = open(name)
  if advance(list) then lists[#lists + 1] = list end
end

local jobs, scanned = {}, 0
while #lists > 0 and scanned < limit and #jobs < wanted do
  local first = 1
  for at = 2, #lists do
    if before(lists[at].head, lists[first].head) then first = at end
  end
  last, scanned = lists[first].head, scanned + 1
  if not advance(lists[first]) then table.remove(lists, first) end
  local id = last.id
  local f = read(id, 's', 'en', 'w', 'e', 'st', 't', 'o', 'pu', 'pm')
  local ended, kept = whole(f[2]), f[2] and retention(f[3])
  local expired = ended and kept and ended + kept <= now
  local entered = f[2] or f[1] == '2' and f[5] or f[4] or terms(f[3])
  local moved = status ~= '' and (f[1] ~= status or since > 0 and (whole(entered) or 0) > since)
  local foreign = owner ~= '' and (f[1] == '9' or f[7] ~= owner or type_name ~= '' and f[6] ~= type_name)
  if f[1] and not expired and not moved and not foreign and matches(id, f) then
    jobs[#jobs + 1] = {id, call('HGETALL', ns .. 'job:' .. id), f[1] ~= '3' and or_else(redis.pcall('GET', ns .. 'end:' .. id), ''),
      or_else(redis.pcall('LRANGE', ns .. 'past:' .. id, 0, -1), {''})}
  end
end
if scanned < limit and #jobs < wanted then last = nil end
return {now, last and string.format('%.0f', last.score) or '', last and last.id or '', jobs, scanned}
