-- Ends attempts, each guarded by its lease. A repeat is answered as before and changes nothing.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 how many errors for jobs whose cancellation was requested, then those, then for each attempt: id,
--             token, outcome (as `AttemptOutcome`), result or error, delay, which of those errors, slow (1 or empty), span,
--             progress (see `add_progress`; empty leaves it)
-- Result      for each attempt the state that its job went to by it, or -1: lost
-- Cost        O(log n) and about 6 commands, 3 or 4 more for each job

local FIELDS = 9
local errors = tonumber(ARGV[2])
local answers = {}

-- The state that a field says an attempt led to: lost, if it cannot be read.
local function told(state) return state:match('^[0-5]$') and tonumber(state) or -1 end

local function settle(at)
  local id, token = ARGV[at], ARGV[at + 1]
  local job = running(id)
  if job.status == '2' and job.token == token then
    return finish(id, job, ARGV[at + 2], ARGV[at + 3], ARGV[2 + ARGV[at + 5]], ARGV[at + 4], ARGV[at + 6] == '1',
      ARGV[at + 7], ARGV[at + 8]) or -1
  end
  local f = read(id, 'sd', 'lt', 'ls')
  if job.token == token then
    if f[1] and f[1] ~= '' then return told(f[1]) end
    -- The latest claim is known and nothing else was noted of it: its settlement ended the job.
    if job.status and job.status:match('^[345]$') then return tonumber(job.status) end
  end
  return f[2] == token and told(f[3] or '') or -1
end

for at = 3 + errors, #ARGV, FIELDS do answers[#answers + 1] = settle(at) end
flush()
return answers
