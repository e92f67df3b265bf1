-- Progress and log lines of running attempts.
--
-- Keys        1 the namespace
-- Arguments   1 now, then for each report: id, token, progress (1 or empty), completed, total, percent, message, how many
--             lines, then for each line: what it counts for, record
-- Result      for each report 0 applied, 1 lost
-- Cost        3 commands for each report; one for each line that has to go

local LOG_BYTES = 1048576
local answers = {}

-- Beyond the bound the oldest attempt's lines go, never the current one's.
local function make_room(logs, bytes, attempt)
  local oldest
  while true do
    local line = call('LINDEX', logs, 0)
    if not line then return 0 end
    local of, size = line:match('^%d+ (%d+) (%d+) ')
    size = tonumber(size) or #line
    if of == attempt or bytes <= LOG_BYTES and of ~= oldest then return bytes end
    oldest, bytes = of, bytes - size
    call('LPOP', logs)
  end
end

local function log(id, from, to, attempt)
  local job, logs = ns .. 'job:' .. id, ns .. 'logs:' .. id
  local f = call('HMGET', job, 'll', 'lb')
  local line, bytes, records = tonumber(f[1]) or 0, tonumber(f[2]) or 0, {}
  if call('TYPE', logs).ok ~= 'list' then call('DEL', logs) end -- None yet, or what is there cannot be read.
  for at = from, to, 2 do
    line, bytes = line + 1, bytes + ARGV[at]
    records[#records + 1] = string.format('%d %s %s ', line, attempt, ARGV[at]) .. ARGV[at + 1]
    if #records == 1000 or at + 1 >= to then
      call('RPUSH', logs, unpack(records))
      records = {}
    end
  end
  if bytes > LOG_BYTES then bytes = make_room(logs, bytes, attempt) end
  call('HSET', job, 'll', line, 'lb', bytes)
end

local at = 2
while at <= #ARGV do
  local id, lines = ARGV[at], tonumber(ARGV[at + 7])
  local f = read(id, 's', 'tk', 'a', 'n')
  if f[1] == '2' and f[2] == ARGV[at + 1] and f[3] and tonumber(f[4] or 1) then
    if lines > 0 then log(id, at + 8, at + 7 + 2 * lines, f[3]) end
    if ARGV[at + 2] == '1' then
      call('HSET', ns .. 'job:' .. id, 'n', tonumber(f[4] or 1) + 1, 'u', now, 'pc', ARGV[at + 3], 'pt', ARGV[at + 4],
        'pp', ARGV[at + 5], 'pm', ARGV[at + 6], 'pu', now)
      changed[#changed + 1] = id
    end
    answers[#answers + 1] = 0
  else
    answers[#answers + 1] = 1
  end
  at = at + 8 + 2 * lines
end
flush()
return answers
