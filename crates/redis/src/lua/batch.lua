-- Collects a script's changes to indexes, counts and hints, so that `flush` makes each with one command.

local last_order

-- The next order number: larger than all before, and not before the current time.
local function next_order()
  last_order = (last_order or math.max(whole(call('HGET', ns .. 'meta', 'order')) or 0, order_at(now) - 1)) + 1
  return last_order
end

local adds, rems, sets, dels, counts, changed, hints = {}, {}, {}, {}, {}, {}, {}

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

-- Appends the fields of a progress that is not empty: completed, total, percent and `=`message between spaces.
local function add_progress(fields, progress)
  local last = #fields
  fields[last + 1], fields[last + 3], fields[last + 5], fields[last + 7] = 'pc', 'pt', 'pp', 'pm'
  fields[last + 2], fields[last + 4], fields[last + 6], fields[last + 8] = progress:match('^(%S*) (%S*) (%S*) (.*)$')
  fields[last + 9], fields[last + 10] = 'pu', now_text
end

local function count(field, by) counts[field] = (counts[field] or 0) + by end

local function flush()
  if sets[1] then call('MSET', unpack(sets)) end
  if dels[1] then call('DEL', unpack(dels)) end
  for index, ids in pairs(rems) do call('ZREM', ns .. index, unpack(ids)) end
  for index, pair in pairs(adds) do
    -- One work hint is enough: a claimer claims until the queue is empty.
    if index:sub(1, 7) == 'queued:' and call('ZCARD', ns .. index) == 0 then
      hints[#hints + 1] = 'w' .. index:sub(8)
    end
    call('ZADD', ns .. index, unpack(pair))
  end
  if next(counts) then
    local minute = 'minute:' .. string.format('%d', math.floor(now / 60000000))
    local fresh = false
    for field, by in pairs(counts) do fresh = increment(minute, field, by) == by or fresh end
    -- Ten minutes longer than the six hours that statistics show.
    if fresh then call('PEXPIRE', ns .. minute, 22200000) end
  end
  if last_order then call('HSET', ns .. 'meta', 'order', last_order) end
  if changed[1] then hints[#hints + 1] = 'j' .. table.concat(changed, ' ') end
  if hints[1] then call('PUBLISH', ns .. 'hints', table.concat(hints, '\n')) end
  adds, rems, sets, dels, counts, changed, hints = {}, {}, {}, {}, {}, {}, {}
end
