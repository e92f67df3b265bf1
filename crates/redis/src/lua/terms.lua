-- The values that a job keeps for its whole life are one field, `w`, because a hash with fewer fields is written and read
-- faster: format, accepted at, priority, retries and losses allowed, retention, bytes of payload, and 1 if the same job may
-- be submitted again, between spaces. A later version may append values.
local TERMS = '^%d+ (%d+) (%d) (%d+) (%d+) (%d+) (%d+) ([01])'

-- Returns the values behind the format; nothing if they cannot be read.
local function terms(text)
  local created, priority, retries, losses, kept, size, again = (text or ''):match(TERMS)
  -- Longer numbers are not exact in a double.
  if created and math.max(#created, #retries, #losses, #kept, #size) <= 16 then
    return created, priority, retries, losses, kept, size, again
  end
end

local function retention(text)
  local _, _, _, _, kept = terms(text)
  return tonumber(kept)
end
