-- Returns the commands that the user may not run. Leaves nothing behind.
--
-- Keys        1 the namespace
-- Result      names of commands
-- Cost        40 commands

local key, denied = KEYS[1] .. 'rights', {}
-- Redis 7.0, and later versions.
local function is_denied(err)
  return err:find('user executing the script', 1, true) or err:find('NOPERM', 1, true) or err:find('ACL failure', 1, true)
end
for line in ([[
TYPE key;EXISTS key;GET key;SET key 1;MGET key;MSET key 1;DEL key;COPY key key2;PEXPIRE key 1000
HGET key a;HSET key a 1;HSETNX key a 1;HMGET key a;HGETALL key;HDEL key a;HLEN key;HEXISTS key a;HINCRBY key a 1;DEL key
ZADD key 1 a;ZREM key a;ZCARD key;ZCOUNT key 0 1;ZSCORE key a;ZRANK key a;ZRANGE key 0 1;ZSCAN key 0
SADD key a;SREM key a;SCARD key;SMEMBERS key;SSCAN key 0;RPUSH key a;LLEN key;LRANGE key 0 1;LTRIM key 0 1;DEL key
TIME;SCAN 0 COUNT 1;PING;PUBLISH hints x
]]):gmatch('[^;\n]+') do
  local command = {}
  for word in line:gmatch('%S+') do
    word = word:gsub('^key', key):gsub('^hints$', KEYS[1] .. 'hints')
    command[#command + 1] = word
  end
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err and is_denied(answer.err) then
    denied[#denied + 1] = command[1]
  end
end
return denied
