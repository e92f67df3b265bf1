local call, ns = redis.call, KEYS[1]
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  -- A test's manual clock. The test read it before it sent the call, so calls that overtake each other would see time go
  -- backwards. Scripts flagged `no-writes` cannot store the latest time.
  now = math.max(now, tonumber(call('GET', ns .. 'clock') or 0))
  redis.pcall('SET', ns .. 'clock', string.format('%.0f', now))
end

-- Parses a whole number that a double represents exactly; nil for anything else. `tonumber` also accepts 'nan', 'inf' and
-- fractions, which would fail a later command, and Redis does not roll a failed script back.
local function whole(text)
  local number = text and #text <= 16 and text:match('^%d+$') and tonumber(text)
  return number and number <= 9007199254740991 and number or nil
end

-- Prints a whole number. Small numbers repeat, so they are cached.
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

-- Reads fields of a job. A key that is no hash has no fields.
local function read(id, ...)
  local fields = redis.pcall('HMGET', ns .. 'job:' .. id, ...)
  return fields.err and {} or fields
end
