-- The histogram bucket of a duration: `store::Histogram::bucket_of`. `frexp` returns an exact power of two, so both agree.
local function bucket(micros)
  if micros < 16 then return micros end
  local part, power = math.frexp(micros) -- part × 2^power, with a part from 0.5 to 1
  return (power - 5) * 16 + math.floor(part * 32)
end
