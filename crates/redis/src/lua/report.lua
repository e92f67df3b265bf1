-- Stores progress and log lines of running attempts.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 fields per report, then for each report: id, token, progress (see `add_progress`; empty leaves it),
--             log lines (see `log`; may be empty)
-- Result      for each report 0 applied, 1 the lease was lost
-- Cost        3 commands for each report, 5 more if old lines are dropped

local stride = tonumber(ARGV[2])
local answers = {}

local function report(id, token, progress, lines)
  local f = read(id, 's', 'tk', 'a', 'n')
  if not (f[1] == '2' and f[2] == token and whole(f[3]) and whole(f[4] or '1')) then return 1 end
  if lines ~= '' then log(id, f[3], lines) end
  if progress ~= '' then
    local fields = {'n', text(whole(f[4] or '1') + 1), 'u', now_text}
    add_progress(fields, progress)
    call('HSET', ns .. 'job:' .. id, unpack(fields))
    changed[#changed + 1] = id
  end
  return 0
end

for at = 3, #ARGV, stride do answers[#answers + 1] = report(unpack(ARGV, at, at + 3)) end
flush()
return answers
