-- Takes, keeps or gives up a role.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 name, 3 who asks, 4 for how long (0: gives it up), 5 the token of a new holder
-- Result      {0, token} held · {1, for how long} somebody else's · {2} given up
-- Cost        2 commands

local role, who, ttl = 'role:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local f = shared('HMGET', role, 'holder', 'token', 'until')
local held = f[1] and f[2] and (whole(f[3]) or 0) > now
if held and f[1] ~= who then return ttl == 0 and {2} or {1, f[3] - now} end
if ttl == 0 then
  call('DEL', ns .. role)
  return {2}
end
local token = held and f[2] or ARGV[5]
call('HSET', ns .. role, 'holder', who, 'token', token, 'until', now + ttl)
return {0, token}
