-- Order numbers and scores: milliseconds since 2025 × 256, so that 256 jobs of a millisecond keep their order. Scores stay
-- below 2^53 until the year 2136, so a double represents them exactly.
local SPAN = 900000000000000

local function order_at(time)
  return math.max(math.floor(time / 1000) - 1735689600000, 0) * 256
end

local function ready_score(priority, order)
  return (9 - priority) * SPAN + order
end
