-- Settles attempts, each fenced by its lease. A repeat returns the same answer and changes nothing.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 number of errors for jobs whose cancellation was requested, then those errors, then the fields per
--             settlement, then for each settlement: id, token, outcome (as `AttemptOutcome`), result or error, delay, which
--             of those errors (from 1), slow (1 or empty), span, progress (see `add_progress`; empty leaves it), log lines (see `log`;
--             may be empty)
-- Result      for each settlement the state that it led to, or -1: the lease was lost
-- Cost        O(log n) and about 6 commands, 3 or 4 more for each job

local errors = tonumber(ARGV[2])
local stride = tonumber(ARGV[3 + errors])
local answers = {}

local function led_to(state) return state:match('^[0-5]$') and tonumber(state) or -1 end

local function settle(at)
  local id, token = ARGV[at], ARGV[at + 1]
  local job = running(id)
  if job.status == '2' and job.token == token then
    local after = finish(id, job, ARGV[at + 2], ARGV[at + 3], ARGV[2 + ARGV[at + 5]], ARGV[at + 4], ARGV[at + 6] == '1',
      ARGV[at + 7], ARGV[at + 8])
    if after and ARGV[at + 9] ~= '' then log(id, text(job.attempt), ARGV[at + 9]) end
    return after or -1
  end
  local f = read(id, 'sd', 'lt', 'ls')
  if job.token == token then
    if f[1] and f[1] ~= '' then return led_to(f[1]) end
    -- A settlement that ended the job records nothing but the job's state.
    if job.status and job.status:match('^[345]$') then return tonumber(job.status) end
  end
  return f[2] == token and led_to(f[3] or '') or -1
end

for at = 4 + errors, #ARGV, stride do answers[#answers + 1] = settle(at) end
flush()
return answers
