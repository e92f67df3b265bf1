-- Orders as scores. All stay below 2^53 until the year 2136, so that they are exact in a double.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end
