-- Acquires, renews or resigns a role.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 name, 3 the asking process, 4 how long it holds the role (0: resigns), 5 the token of a new holder
-- Result      {0, token} held · {1, remaining time} held by another process · {2} resigned
-- Cost        2 commands

local role, process, ttl = ns .. 'role:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local f = call('HMGET', role, 'holder', 'token', 'until')
local held = f[1] and f[2] and (whole(f[3]) or 0) > now
if held and f[1] ~= process then return ttl == 0 and {2} or {1, f[3] - now} end
if ttl == 0 then
  call('DEL', role)
  return {2}
end
local token = held and f[2] or ARGV[5]
call('HSET', role, 'holder', process, 'token', token, 'until', now + ttl)
return {0, token}
