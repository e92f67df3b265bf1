-- Histogram buckets of durations: `store::BOUNDS`, in microseconds.
local BOUNDS = {5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000,
  60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000}

local function bucket(micros)
  for at = 1, #BOUNDS do
    if micros <= BOUNDS[at] then return text(at - 1) end
  end
  return text(#BOUNDS)
end
