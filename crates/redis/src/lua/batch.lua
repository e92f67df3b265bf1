-- What a script changes in orders, indexes and counts, collected and written at its end: a call costs more than what it
-- does.
local last_order
local function next_order()
  last_order = last_order or tonumber(call('HGET', ns .. 'meta', 'order') or 0)
  last_order = math.max(last_order + 1, order_at(now))
  return last_order
end

local adds, rems, counts, changed, woken = {}, {}, {}, {}, {}

local function push(lists, name, ...)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  for _, item in ipairs({...}) do list[#list + 1] = item end
end

local function add(index, score, id) push(adds, index, score, id) end
local function rem(index, id) push(rems, index, id) end
local function count(field, by) counts[field] = (counts[field] or 0) + by end

local function flush()
  for index, ids in pairs(rems) do call('ZREM', ns .. index, unpack(ids)) end
  for index, pair in pairs(adds) do
    -- A claimer that is told of the first one goes on until it finds none.
    if index:sub(1, 7) == 'queued:' and call('ZCARD', ns .. index) == 0 then
      woken[#woken + 1] = 'w' .. index:sub(8)
    end
    call('ZADD', ns .. index, unpack(pair))
  end
  if next(counts) then
    local slot = ns .. 'minute:' .. string.format('%d', math.floor(now / 60000000))
    local fresh = false
    for field, by in pairs(counts) do fresh = call('HINCRBY', slot, field, by) == by or fresh end
    -- A little longer than slots are told.
    if fresh then call('PEXPIRE', slot, 22200000) end
  end
  if last_order then call('HSET', ns .. 'meta', 'order', last_order) end
  if changed[1] then woken[#woken + 1] = 'j' .. table.concat(changed, ' ') end
  if woken[1] then call('PUBLISH', ns .. 'hints', table.concat(woken, '\n')) end
  adds, rems, counts, changed, woken = {}, {}, {}, {}, {}
end
