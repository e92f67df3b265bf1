-- Writes a document if it still has the expected version, and if the role that guards it is still held.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 name, 3 the expected version (empty: no document), 4 the new version, 5 content, 6 role and 7 its
--             token (empty: not guarded)
-- Result      0 stored, 1 stale, 2 fenced
-- Cost        3 commands

if ARGV[6] ~= '' then
  local f = call('HMGET', ns .. 'role:' .. ARGV[6], 'token', 'until')
  if f[1] ~= ARGV[7] or (whole(f[2]) or 0) <= now then return 2 end
end
local document = ns .. 'document:' .. ARGV[2]
if (call('HGET', document, 'version') or '') ~= ARGV[3] then return 1 end
call('HSET', document, 'version', ARGV[4], 'content', ARGV[5])
return 0
