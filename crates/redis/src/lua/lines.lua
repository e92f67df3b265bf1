-- Appends the log lines of a job's latest attempt. A list of lines that is damaged loses them; the rest of the call goes on.

local LOG_BYTES = 1048576
-- At most this many lines are dropped by one call, and read at a time.
local CUT, PART = 2000, 500

-- Drops the oldest attempt's lines while the job has too many bytes, never the current attempt's. An attempt with very many
-- lines is dropped over several calls: `dropping` is that attempt. Returns the bytes left and the attempt still being
-- dropped, if any.
local function drop_lines(logs, bytes, attempt, dropping)
  local dropped = 0
  for from = 0, CUT - 1, PART do
    for _, line in ipairs(redis.pcall('LRANGE', logs, from, from + PART - 1)) do
      local of, size = line:match('^%d+ (%d+) (%d+) ')
      if of == attempt or bytes <= LOG_BYTES and of ~= dropping then
        redis.pcall('LTRIM', logs, dropped, -1)
        return bytes
      end
      dropping, bytes, dropped = of, bytes - (tonumber(size) or #line), dropped + 1
    end
  end
  redis.pcall('LTRIM', logs, dropped, -1)
  return bytes, dropping
end

-- `attempt` is text. `lines` has for each line its counted bytes, a space, its record, which is JSON, and a line feed.
local function log(id, attempt, lines)
  local job, logs = ns .. 'job:' .. id, ns .. 'logs:' .. id
  local f = call('HMGET', job, 'll', 'lb', 'lg')
  local line, bytes, records = whole(f[1]) or 0, whole(f[2]) or 0, {}
  local function push()
    if records[1] then redis.pcall('RPUSH', logs, unpack(records)) end
    records = {}
  end
  for size, record in lines:gmatch('(%d+) ([^\n]*)\n') do
    line, bytes = line + 1, bytes + size
    records[#records + 1] = string.format('%d %s %s ', line, attempt, size) .. record
    if #records == 1000 then push() end
  end
  push()
  local dropping = f[3] ~= '' and f[3] or nil
  if bytes > LOG_BYTES or dropping then
    bytes, dropping = drop_lines(logs, bytes, attempt, dropping)
    if dropping or f[3] then call('HSET', job, 'lg', dropping or '') end
  end
  call('HSET', job, 'll', line, 'lb', bytes)
end
