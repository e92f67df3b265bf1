#!lua flags=no-writes
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

-- What a job keeps for its whole life is one field, `w`: the fewer fields a hash has, the sooner it is written and read. Words,
-- in this order: format, accepted at, priority, retries and losses allowed, retention, bytes of payload, whether it may be
-- submitted again. A later version may add to them.
local TERMS = '^%d+ (%d+) (%d) (%d+) (%d+) (%d+) (%d+) ([01])'

-- Its words behind the format; nothing if they cannot be read.
local function terms(text)
  local created, priority, retries, losses, kept, size, again = (text or ''):match(TERMS)
  -- A longer one is no number that a double keeps exact.
  if created and math.max(#created, #retries, #losses, #kept, #size) <= 16 then
    return created, priority, retries, losses, kept, size, again
  end
end

local function retention(text)
  local _, _, _, _, kept = terms(text)
  return tonumber(kept)
end

-- What is known of an id: {0} nothing, {1, owner} its retention is over, {2, id, fields, outcome, attempts, ahead} the job.
local function lookup(id)
  local job = ns .. 'job:' .. id
  -- Whoever asks for a job that cannot be read is told so: nothing here goes on without what it needs.
  local f = call('HMGET', job, 's', 't', 'en', 'w', 'gu', 'o')
  if f[5] then
    return now < tonumber(f[5]) and {1, f[6] or ''} or {0}
  end
  if not f[1] then return {0} end
  local ended, kept = whole(f[3]), f[3] and retention(f[4])
  if ended and kept and ended + kept <= now then return now < ended + 2 * kept and {1, f[6] or ''} or {0} end
  local ahead = f[1] == '0' and f[2] and call('ZRANK', ns .. 'queued:' .. f[2], id) or -1
  return {2, id, call('HGETALL', job), call('GET', ns .. 'end:' .. id), call('LRANGE', ns .. 'past:' .. id, 0, -1), ahead}
end

-- A job as it is now.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 id
-- Result      a lookup
-- Cost        6 commands

return lookup(ARGV[2])

-- As of the first release.
