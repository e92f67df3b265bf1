-- Returns the versions of jobs.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2… ids
-- Result      for each id its version, 0 if there is no such job
-- Cost        1 command for each id

local answers = {}
for at = 2, #ARGV do
  local f = read(ARGV[at], 's', 'n', 'en', 'w')
  local ended, kept = whole(f[3]), f[3] and retention(f[4])
  local expired = ended and kept and ended + kept <= now
  answers[#answers + 1] = f[1] and not expired and whole(f[2] or '1') or 0
end
return answers
