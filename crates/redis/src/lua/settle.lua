-- Ends attempts, each guarded by its lease. A repeat is answered as before and changes nothing.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 how many errors for jobs whose cancellation was requested, then those, then for each attempt: id,
--             token, outcome (as `AttemptOutcome`), result or error, delay, which of those errors, slow (1 or empty), span
-- Result      for each attempt the state that its job went to by it, or -1: lost
-- Cost        O(log n) and about 6 commands, 3 or 4 more for each job

local FIELDS = 8
local errors = tonumber(ARGV[2])
local answers, ended = {}, {}

local function settle(at)
  local id, token = ARGV[at], ARGV[at + 1]
  local again = ended[id .. token]
  if again then return again end
  local job = running(id)
  if job.status == '2' and job.token == token then
    local after = finish(id, job, tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[2 + tonumber(ARGV[at + 5])],
      tonumber(ARGV[at + 4]), ARGV[at + 6] == '1', ARGV[at + 7]) or -1
    ended[id .. token] = after
    return after
  end
  local f = read(id, 'sd', 'lt', 'ls')
  if job.token == token and f[1] and f[1] ~= '' then return tonumber(f[1]) end
  if f[2] == token and f[3] ~= '' then return tonumber(f[3]) end
  return -1
end

for at = 3 + errors, #ARGV, FIELDS do answers[#answers + 1] = settle(at) end
flush()
return answers
