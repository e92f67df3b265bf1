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
