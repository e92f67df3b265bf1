-- Stores progress and log lines of running attempts.
--
-- Keys        1 the namespace
-- Arguments   1 now, 2 fields per report, 3 fields per line, then for each report: id, token, progress (see `add_progress`;
--             empty leaves it), number of lines; then its lines: counted bytes, record
-- Result      for each report 0 applied, 1 the lease was lost
-- Cost        3 commands for each report, 5 more if old lines are dropped

local LOG_BYTES = 1048576
-- At most this many lines are dropped by one report, and read at a time.
local CUT, PART = 2000, 500
local report_stride, line_stride = tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}

-- Drops the oldest attempt's lines while the job has too many bytes, never the current attempt's. An attempt with very many
-- lines is dropped over several reports: `dropping` is that attempt. Returns the bytes left and the attempt still being
-- dropped, if any.
local function drop_lines(logs, bytes, attempt, dropping)
  local dropped = 0
  for from = 0, CUT - 1, PART do
    for _, line in ipairs(call('LRANGE', logs, from, from + PART - 1)) do
      local of, size = line:match('^%d+ (%d+) (%d+) ')
      if of == attempt or bytes <= LOG_BYTES and of ~= dropping then
        call('LTRIM', logs, dropped, -1)
        return bytes
      end
      dropping, bytes, dropped = of, bytes - (tonumber(size) or #line), dropped + 1
    end
  end
  call('LTRIM', logs, dropped, -1)
  return bytes, dropping
end

local function log(id, from, to, attempt)
  local job, logs = ns .. 'job:' .. id, ns .. 'logs:' .. id
  local f = call('HMGET', job, 'll', 'lb', 'lg')
  local line, bytes, records = whole(f[1]) or 0, whole(f[2]) or 0, {}
  for at = from, to, line_stride do
    line, bytes = line + 1, bytes + ARGV[at]
    records[#records + 1] = string.format('%d %s %s ', line, attempt, ARGV[at]) .. ARGV[at + 1]
    if #records == 1000 or at + line_stride > to then
      call('RPUSH', logs, unpack(records))
      records = {}
    end
  end
  local dropping = f[3] ~= '' and f[3] or nil
  if bytes > LOG_BYTES or dropping then
    bytes, dropping = drop_lines(logs, bytes, attempt, dropping)
    if dropping or f[3] then call('HSET', job, 'lg', dropping or '') end
  end
  call('HSET', job, 'll', line, 'lb', bytes)
end

local at = 4
while at <= #ARGV do
  local id, token, progress, lines = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local from = at + report_stride
  local after = from + lines * line_stride
  local f = read(id, 's', 'tk', 'a', 'n')
  if f[1] == '2' and f[2] == token and whole(f[3]) and whole(f[4] or '1') then
    if lines > 0 then log(id, from, after - 1, f[3]) end
    if progress ~= '' then
      local fields = {'n', text(whole(f[4] or '1') + 1), 'u', now_text}
      add_progress(fields, progress)
      call('HSET', ns .. 'job:' .. id, unpack(fields))
      changed[#changed + 1] = id
    end
    answers[#answers + 1] = 0
  else
    answers[#answers + 1] = 1
  end
  at = after
end
flush()
return answers
