#!lua flags=allow-oom
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
local function whole(text) return text and #text <= 16 and text:match('^%d+$') and tonumber(text) or nil end

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

-- Takes, keeps or gives up a role.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 name, 3 who asks, 4 for how long (0: gives it up), 5 the token of a new holder
-- Result      {0, token} held · {1, for how long} somebody else's · {2} given up
-- Cost        2 commands

local role, who, ttl = ns .. 'role:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local f = call('HMGET', role, 'holder', 'token', 'until')
local held = f[3] and tonumber(f[3]) > now
if held and f[1] ~= who then return ttl == 0 and {2} or {1, f[3] - now} end
if ttl == 0 then
  call('DEL', role)
  return {2}
end
local token = held and f[2] or ARGV[5]
call('HSET', role, 'holder', who, 'token', token, 'until', now + ttl)
return {0, token}

-- As of the first release.
