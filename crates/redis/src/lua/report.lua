-- Progress and log lines of running attempts.
--
-- Keys        1 the namespace
-- Arguments   1 now, then for each report: id, token, progress (see `add_progress`; empty leaves it), how many lines, then
--             for each line: what it counts for, record
-- Result      for each report 0 applied, 1 lost
-- Cost        3 commands for each report, 5 more for one that makes room

local LOG_BYTES = 1048576
-- Lines that go at once, and that are looked at together.
local CUT, PART = 2000, 500
local answers = {}

-- Beyond the bound the oldest attempt's lines go, never the current one's. Of very many, what is left over goes with the next
-- report: `going` is the attempt whose lines do. Returns the bytes that stay, and whose lines still go, if any do.
local function make_room(logs, bytes, attempt, going)
  local gone = 0
  for from = 0, CUT - 1, PART do
    for _, line in ipairs(call('LRANGE', logs, from, from + PART - 1)) do
      local of, size = line:match('^%d+ (%d+) (%d+) ')
      if of == attempt or bytes <= LOG_BYTES and of ~= going then
        call('LTRIM', logs, gone, -1)
        return bytes
      end
      going, bytes, gone = of, bytes - (tonumber(size) or #line), gone + 1
    end
  end
  call('LTRIM', logs, gone, -1)
  return bytes, going
end

local function log(id, from, to, attempt)
  local job, logs = ns .. 'job:' .. id, ns .. 'logs:' .. id
  local f = call('HMGET', job, 'll', 'lb', 'lg')
  local line, bytes, records = whole(f[1]) or 0, whole(f[2]) or 0, {}
  if call('TYPE', logs).ok ~= 'list' then call('DEL', logs) end -- None yet, or what is there cannot be read.
  for at = from, to, 2 do
    line, bytes = line + 1, bytes + ARGV[at]
    records[#records + 1] = string.format('%d %s %s ', line, attempt, ARGV[at]) .. ARGV[at + 1]
    if #records == 1000 or at + 1 >= to then
      call('RPUSH', logs, unpack(records))
      records = {}
    end
  end
  local going = f[3] ~= '' and f[3] or nil
  if bytes > LOG_BYTES or going then
    bytes, going = make_room(logs, bytes, attempt, going)
    if going or f[3] then call('HSET', job, 'lg', going or '') end
  end
  call('HSET', job, 'll', line, 'lb', bytes)
end

local at = 2
while at <= #ARGV do
  local id, lines = ARGV[at], tonumber(ARGV[at + 3])
  local f = read(id, 's', 'tk', 'a', 'n')
  if f[1] == '2' and f[2] == ARGV[at + 1] and whole(f[3]) and whole(f[4] or '1') then
    if lines > 0 then log(id, at + 4, at + 3 + 2 * lines, f[3]) end
    if ARGV[at + 2] ~= '' then
      local fields = {'n', text(whole(f[4] or '1') + 1), 'u', now_text}
      add_progress(fields, ARGV[at + 2])
      call('HSET', ns .. 'job:' .. id, unpack(fields))
      changed[#changed + 1] = id
    end
    answers[#answers + 1] = 0
  else
    answers[#answers + 1] = 1
  end
  at = at + 4 + 2 * lines
end
flush()
return answers
