-- End several jobs and fetch as many: what single calls of finish.lua would leave, in one script.
-- KEYS[1..11] as moveToActive's (wait active prioritized events stalled limiter delayed paused meta pc marker), KEYS[12] completed,
-- KEYS[13] metrics:completed, KEYS[14] event log
-- ARGV[1] key prefix, [2] now, [3] lock ms, [4] worker name, [5] msgpack keepJobs, [6] msgpack limiter or '', [7] jobs to fetch, [8] their tokens' beginning,
-- [9] '1' if this call was made before and its reply lost
-- ARGV[10..] six a job that is completed: id, token, result, event id, event time, event data
-- Returns {an answer for each (0, a code of moveToFinished, or an error's text), jobs {fields, id, token number, …}, limit ms, next delayed at, error or false}.
local call = redis.call
local active, completed = KEYS[2], KEYS[12]
local prefix, now, lock_ms = ARGV[1], ARGV[2], ARGV[3]
local keep = cmsgpack.unpack(ARGV[5])
local removed = keep['count'] == 0
local answers = {}

local function tell(at)
  call('XADD', KEYS[14], '*', 'id', ARGV[at + 3], 'type', 'job.completed', 'ts', ARGV[at + 4], 'data', ARGV[at + 5])
end

-- What moveToFinished would refuse, or nil. Nothing has been written then.
local function refused(id, token, key)
  if call('EXISTS', key) == 0 then return -1 end
  if call('SCARD', key .. ':dependencies') ~= 0 then return -4 end
  if call('ZCARD', key .. ':unsuccessful') ~= 0 then return -9 end
  local held = call('GET', key .. ':lock')
  if held == token then return nil end
  if held then return -6 end
  -- It ran out (an outage, a blocked loop). As long as the job is active and nobody else has locked it, it is ours.
  if not call('LPOS', active, id) then return -2 end
end

-- A job without parent or deduplication: what moveToFinished does to the job itself.
local function end_plain(at)
  local id, token, result = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local key = prefix .. id
  local code = refused(id, token, key)
  if code then return code end
  -- The first write, so that a full store, which refuses only a script's first, lets the job end.
  if call('LREM', active, -1, id) < 1 then return -3 end
  tell(at)
  call('DEL', key .. ':lock')
  call('SREM', KEYS[5], id)
  if removed then
    call('DEL', key, key .. ':logs', key .. ':dependencies', key .. ':processed', key .. ':failed', key .. ':unsuccessful')
  else
    call('HINCRBY', key, 'atm', 1)
    call('ZADD', completed, now, id)
    call('HSET', key, 'returnvalue', result, 'finishedOn', now)
  end
  call('XADD', KEYS[4], '*', 'event', 'completed', 'jobId', id, 'returnvalue', result, 'prev', 'active')
  return 0
end

-- By BullMQ's script, as finish.lua does it.
local function end_by_stock(at)
  local id, token = ARGV[at], ARGV[at + 1]
  local key = prefix .. id
  if call('EXISTS', key .. ':lock') == 0 and call('LPOS', active, id) then call('SET', key .. ':lock', token, 'PX', lock_ms) end
  local rc = moveToFinished(
    {KEYS[1], active, KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], completed, key, KEYS[13], KEYS[11]},
    {id, now, 'returnvalue', ARGV[at + 2], 'completed', '', prefix,
      cmsgpack.pack({token = token, keepJobs = keep, attempts = 1, attemptsMade = 0, maxMetricsSize = '', fpof = false, cpof = false, idof = false, rdof = false})})
  if rc == 0 then tell(at) end
  return rc
end

-- A Lua error rolls nothing back. If it came after the job had left `active`, the end stands, and so must its event (which end_plain writes first).
local function ended(at, how)
  local ok, rc = pcall(how, at)
  if ok then return rc end
  if call('LPOS', active, ARGV[at]) then return tostring(rc) end
  if how == end_by_stock then tell(at) end
  return 0
end

-- Retention, trimming and `drained` concern the queue, not a job: once, with the last job that is not refused.
local closing = #ARGV - 5
while closing > 10 and refused(ARGV[closing], ARGV[closing + 1], prefix .. ARGV[closing]) do closing = closing - 6 end
for at = 10, #ARGV, 6 do
  if at ~= closing then answers[(at - 4) / 6] = ended(at, end_plain) end
end
if closing >= 10 then answers[(closing - 4) / 6] = ended(closing, end_by_stock) end

local wanted, jobs = tonumber(ARGV[7]), {}
if wanted == 0 then return {answers, jobs, 0, 0, false} end

local function fetch_by_stock()
  local opts = {token = ARGV[8] .. (#jobs / 3), lockDuration = lock_ms, name = ARGV[4]}
  if ARGV[6] ~= '' then opts.limiter = cmsgpack.unpack(ARGV[6]) end
  return moveToActive({unpack(KEYS, 1, 11)}, {prefix, now, cmsgpack.pack(opts)})
end

local function fetch_plain()
  local id = call('RPOPLPUSH', KEYS[1], active)
  while id and string.sub(id, 1, 2) == '0:' do
    -- A marker of BullMQ before 5.
    call('LREM', active, 1, id)
    id = call('RPOPLPUSH', KEYS[1], active)
  end
  if not id then return nil end
  local key = prefix .. id
  call('SET', key .. ':lock', ARGV[8] .. (#jobs / 3), 'PX', lock_ms)
  call('XADD', KEYS[4], '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  call('HSET', key, 'processedOn', now, 'pb', ARGV[4])
  call('HINCRBY', key, 'ats', 1)
  return {call('HGETALL', key), id}
end

local limit_ms, next_at = 0, 0
local function fetch()
  if ARGV[9] ~= '' then
    for _, id in ipairs(call('LRANGE', active, 0, -1)) do
      local held = call('GET', prefix .. id .. ':lock')
      if held and string.sub(held, 1, #ARGV[8]) == ARGV[8] then
        jobs[#jobs + 1], jobs[#jobs + 2], jobs[#jobs + 3] = call('HGETALL', prefix .. id), id, string.sub(held, #ARGV[8] + 1)
      end
    end
    if #jobs > 0 then return end
  end
  -- The first by BullMQ's script: it promotes what is due, looks at limiter and pause, and leaves the marker.
  local by_stock = true
  local meta = call('HMGET', KEYS[9], 'concurrency', 'max')
  local plain = not meta[1] and not meta[2] and ARGV[6] == ''
  while #jobs / 3 < wanted do
    local job = not by_stock and fetch_plain() or nil
    if not job then
      job = fetch_by_stock()
      if type(job) ~= 'table' or type(job[1]) ~= 'table' then
        if type(job) == 'table' then limit_ms, next_at = job[3] or 0, job[4] or 0 end
        return
      end
    end
    by_stock = not plain
    local number = #jobs / 3
    jobs[#jobs + 1], jobs[#jobs + 2], jobs[#jobs + 3] = job[1], job[2], number
  end
end
-- The fetch must not be able to undo what was answered about the ends.
local ok, error = pcall(fetch)
return {answers, jobs, limit_ms, next_at, not ok and tostring(error) or false}
