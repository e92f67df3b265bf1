#!lua
local call, ns = redis.call, KEYS[1]
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  -- A test's clock, read before the call travelled: it must not go backwards here. A script that only reads cannot keep it.
  now = math.max(now, tonumber(call('GET', ns .. 'clock') or 0))
  redis.pcall('SET', ns .. 'clock', string.format('%.0f', now))
end

-- What a field of a job says, if it is a whole number that a double keeps exact. `tonumber` takes 'nan', 'inf' and fractions
-- too, and a script that fails over one later, on its way, is not rolled back.
local function whole(text)
  local number = text and #text <= 16 and text:match('^%d+$') and tonumber(text)
  return number and number <= 9007199254740991 and number or nil
end

-- A number that goes to a command or into a name is printed each time, as a fraction may be. These are whole, and small ones
-- come again.
local texts = {}
local function text(number)
  local text = texts[number]
  if not text then
    text = string.format('%d', number)
    texts[number] = text
  end
  return text
end
local now_text = text(now)

-- Orders as scores. All stay below 2^53 until the year 2136, so that they are exact in a double.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end

-- What cannot be read is put aside, so that it is never in the way again.

-- A command on a key that many jobs share. What stands in its place and is none of ours is renamed, a count that is no number
-- begins anew, and the command goes on: a script is not rolled back, so one that fails on its way would leave a half.
local function shared(command, name, ...)
  local key = ns .. name
  local done = redis.pcall(command, key, ...)
  if type(done) ~= 'table' or not done.err then return done end
  if done.err:find('WRONGTYPE', 1, true) then
    call('RENAME', key, ns .. 'aside:' .. name)
  elseif command == 'HINCRBY' then
    call('HDEL', key, (...))
  else
    error(done)
  end
  done = call(command, key, ...)
  shared('HINCRBY', 'meta', 'mended', 1)
  return done
end

-- Fields of a job. A key that is no hash has none.
local function read(id, ...)
  local fields = redis.pcall('HMGET', ns .. 'job:' .. id, ...)
  return fields.err and {} or fields
end

-- The answer to whoever asks for a job that cannot be read.
local function unreadable(id) return redis.error_reply('CORRUPT job ' .. id .. ' has fields that cannot be read') end

-- Out of the index it was found in, and of those of the type that the index is of, or else the job. A job says so itself.
local function put_aside(index, id, why)
  local name = index:match(':(.+)$') or read(id, 't')[1]
  if index ~= 'leased' then shared('ZREM', index, id) end
  shared('ZREM', 'leased', id)
  if name then
    shared('ZREM', 'running:' .. name, id)
    shared('ZREM', 'accepted:' .. name, id)
    shared('SREM', 'delayed:' .. name, id)
  end
  if call('EXISTS', ns .. 'job:' .. id) == 1 then redis.pcall('HSET', ns .. 'job:' .. id, 's', 9) end
  shared('HSET', 'quarantine', id, string.format('%.0f %s %s', now, index, why))
end

-- An entry of an index that its job does not belong in: it is in another state, of another type, or only a tombstone is left
-- of it. It is dropped: the job decides, never the index. One whose job is not there, or says no state, is put aside.
local function misplaced(index, id)
  local f = read(id, 's', 't', 'gu')
  local name = index:match(':(.+)$')
  if f[3] or f[1] and f[1]:match('^[0-5]$') and f[2] then
    shared('ZREM', index, id)
    if name and name ~= f[2] then
      shared('ZREM', 'accepted:' .. name, id)
      shared('SREM', 'delayed:' .. name, id)
    end
    shared('HINCRBY', 'meta', 'mended', 1)
  elseif f[1] then
    put_aside(index, id, 'its state cannot be read')
  else
    put_aside(index, id, call('EXISTS', ns .. 'job:' .. id) == 1 and 'it is no job' or 'there is no such job')
  end
end

-- What a script changes in orders, indexes and counts, collected and written at its end: a call costs more than what it
-- does.
local last_order
local function next_order()
  if not last_order then
    local last = whole(shared('HGET', 'meta', 'order'))
    last_order = math.max(last and last < SPAN and last or 0, order_at(now) - 1)
  end
  last_order = last_order + 1
  return last_order
end

local adds, rems, sets, dels, counts, changed, woken = {}, {}, {}, {}, {}, {}, {}

local function add(index, score, id)
  local list = adds[index]
  if not list then
    list = {}
    adds[index] = list
  end
  local last = #list
  list[last + 1], list[last + 2] = score, id
end

local function rem(index, id)
  local list = rems[index]
  if not list then
    list = {}
    rems[index] = list
  end
  list[#list + 1] = id
end

local function set(key, value)
  local last = #sets
  sets[last + 1], sets[last + 2] = key, value
end

local function count(field, by) counts[field] = (counts[field] or 0) + by end

local function flush()
  if sets[1] then call('MSET', unpack(sets)) end
  if dels[1] then call('DEL', unpack(dels)) end
  for index, ids in pairs(rems) do shared('ZREM', index, unpack(ids)) end
  for index, pair in pairs(adds) do
    -- A claimer that is told of the first one goes on until it finds none.
    if index:sub(1, 7) == 'queued:' and shared('ZCARD', index) == 0 then
      woken[#woken + 1] = 'w' .. index:sub(8)
    end
    shared('ZADD', index, unpack(pair))
  end
  if next(counts) then
    local slot = 'minute:' .. string.format('%d', math.floor(now / 60000000))
    local fresh = false
    for field, by in pairs(counts) do fresh = shared('HINCRBY', slot, field, by) == by or fresh end
    -- A little longer than slots are told.
    if fresh then call('PEXPIRE', ns .. slot, 22200000) end
  end
  if last_order then shared('HSET', 'meta', 'order', last_order) end
  if changed[1] then woken[#woken + 1] = 'j' .. table.concat(changed, ' ') end
  if woken[1] then call('PUBLISH', ns .. 'hints', table.concat(woken, '\n')) end
  adds, rems, sets, dels, counts, changed, woken = {}, {}, {}, {}, {}, {}, {}
end

-- Progress and log lines of running attempts.
--
-- Keys        1 the namespace
-- Arguments   1 now, then for each report: id, token, progress (1 or empty), completed, total, percent, message, how many
--             lines, then for each line: what it counts for, record
-- Result      for each report 0 applied, 1 lost
-- Cost        3 commands for each report, 5 more for one that makes room

local LOG_BYTES = 1048576
-- Lines that go at once, and that are looked at together.
local CUT, PART = 2000, 500
local answers = {}

-- Beyond the bound the oldest attempt's lines go, never the current one's. Of very many, what is left over goes with the next
-- report: `going` is the attempt whose lines do. Returns the bytes that stay, and whose lines still go, if any do.
local function make_room(logs, bytes, attempt, going)
  local gone = 0
  for from = 0, CUT - 1, PART do
    for _, line in ipairs(call('LRANGE', logs, from, from + PART - 1)) do
      local of, size = line:match('^%d+ (%d+) (%d+) ')
      if of == attempt or bytes <= LOG_BYTES and of ~= going then
        call('LTRIM', logs, gone, -1)
        return bytes
      end
      going, bytes, gone = of, bytes - (tonumber(size) or #line), gone + 1
    end
  end
  call('LTRIM', logs, gone, -1)
  return bytes, going
end

local function log(id, from, to, attempt)
  local job, logs = ns .. 'job:' .. id, ns .. 'logs:' .. id
  local f = call('HMGET', job, 'll', 'lb', 'lg')
  local line, bytes, records = whole(f[1]) or 0, whole(f[2]) or 0, {}
  if call('TYPE', logs).ok ~= 'list' then call('DEL', logs) end -- None yet, or what is there cannot be read.
  for at = from, to, 2 do
    line, bytes = line + 1, bytes + ARGV[at]
    records[#records + 1] = string.format('%d %s %s ', line, attempt, ARGV[at]) .. ARGV[at + 1]
    if #records == 1000 or at + 1 >= to then
      call('RPUSH', logs, unpack(records))
      records = {}
    end
  end
  local going = f[3] ~= '' and f[3] or nil
  if bytes > LOG_BYTES or going then
    bytes, going = make_room(logs, bytes, attempt, going)
    if going or f[3] then call('HSET', job, 'lg', going or '') end
  end
  call('HSET', job, 'll', line, 'lb', bytes)
end

local at = 2
while at <= #ARGV do
  local id, lines = ARGV[at], tonumber(ARGV[at + 7])
  local f = read(id, 's', 'tk', 'a', 'n')
  if f[1] == '2' and f[2] == ARGV[at + 1] and whole(f[3]) and whole(f[4] or '1') then
    if lines > 0 then log(id, at + 8, at + 7 + 2 * lines, f[3]) end
    if ARGV[at + 2] == '1' then
      call('HSET', ns .. 'job:' .. id, 'n', whole(f[4] or '1') + 1, 'u', now, 'pc', ARGV[at + 3], 'pt', ARGV[at + 4],
        'pp', ARGV[at + 5], 'pm', ARGV[at + 6], 'pu', now)
      changed[#changed + 1] = id
    end
    answers[#answers + 1] = 0
  else
    answers[#answers + 1] = 1
  end
  at = at + 8 + 2 * lines
end
flush()
return answers

-- As of the first release.
