-- End several jobs and fetch as many: what single calls of finish.lua and moveToActive would leave, in one script.
-- KEYS[1..11] as moveToActive's (wait active prioritized events stalled limiter delayed paused meta pc marker), KEYS[12] completed,
-- KEYS[13] event log
-- ARGV[1] key prefix, [2] now, [3] lock ms, [4] worker name, [5] msgpack keepJobs, [6] msgpack limiter or '', [7] jobs to fetch, [8] their tokens' beginning,
-- [9] '1' if this call was made before and its reply lost, [10] msgpack jobs that are completed: {id, token, attempt, result, what the log is
-- told of it} each
-- FIELDS, which `trade.py` puts before this: what is read of a job's hash
-- Returns {an answer for each (0, a code of moveToFinished, -100 for one to be ended alone, or an error's text), jobs {token, FIELDS …, id} …,
--   limit ms, next delayed at, error in fetching or false, error after the ends or false, 1 if there are more jobs}.
-- A call from Lua costs the store more than most commands do: hence one for all jobs wherever there is one.
local call = redis.call
local wait, active, prioritized, events, completed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[12]
local prefix, now, lock_ms = ARGV[1], ARGV[2], ARGV[3]
local ends = cmsgpack.unpack(ARGV[10])
local meta = call('HMGET', KEYS[9], 'paused', 'concurrency', 'max', 'opts.maxLenEvents')

-- --- ending ---

local keep = cmsgpack.unpack(ARGV[5])
local removed = keep['count'] == 0
local answers, locks, ids, scores, gone = {}, {}, {}, {}, {}
local job_keys, lock_keys, held, sound = {}, {}, {}, true

local function look()
  local children = {}
  for at = 1, #ends do
    local key = prefix .. ends[at][1]
    job_keys[at], lock_keys[at] = key, key .. ':lock'
    children[at * 2 - 1], children[at * 2] = key .. ':dependencies', key .. ':unsuccessful'
  end
  held = call('MGET', unpack(lock_keys))
  sound = call('EXISTS', unpack(job_keys)) == #ends and call('EXISTS', unpack(children)) == 0
end

-- What moveToFinished would refuse, or nil. Nothing has been written then.
local function refused(at)
  local id, token, key = ends[at][1], ends[at][2], job_keys[at]
  if not sound then
    if call('EXISTS', key) == 0 then return -1 end
    if call('SCARD', key .. ':dependencies') ~= 0 then return -4 end
    if call('ZCARD', key .. ':unsuccessful') ~= 0 then return -9 end
  end
  local lock = held[at]
  if lock == token then return nil end
  if lock then return -6 end
  -- It ran out (an outage, a blocked loop). As long as the job is active and nobody else has locked it, it is ours.
  if not call('LPOS', active, id) then return -2 end
end

-- A job without parent or deduplication: what moveToFinished does to the job itself.
local function end_one(at)
  local code = refused(at)
  if code then return code end
  local id, _, attempt, result, told = unpack(ends[at])
  local key = job_keys[at]
  -- An existing job may be given a parent at any time.
  if call('HEXISTS', key, 'parentKey') == 1 then return -100 end
  -- The first write, so that a full store, which refuses only a script's first, lets the job end.
  if call('LREM', active, -1, id) < 1 then return -3 end
  call('XADD', KEYS[13], '*', 'job.completed', told)
  locks[#locks + 1], ids[#ids + 1] = lock_keys[at], id
  if removed then
    gone[#gone + 1] = key
  else
    -- While the job is locked nobody else counts its attempts.
    call('HSET', key, 'atm', attempt, 'returnvalue', result, 'finishedOn', now)
    scores[#scores + 1], scores[#scores + 2] = now, id
  end
  call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', result, 'prev', 'active')
  return 0
end

-- A Lua error rolls nothing back. If it came after the job had left `active`, the end stands, and so does its event, which was written next.
local function ended(at)
  local ok, rc = pcall(end_one, at)
  if ok then return rc end
  return call('LPOS', active, ends[at][1]) and tostring(rc) or 0
end

-- Lua's stack has room for about 8,000 arguments.
local function each(values, ...)
  for from = 1, #values, 5000 do
    local command = {...}
    for at = from, math.min(from + 4999, #values) do command[#command + 1] = values[at] end
    call(unpack(command))
  end
end

local function keep_no_more(old)
  for _, id in ipairs(old) do gone[#gone + 1] = prefix .. id end
end

-- The store keeps a small sorted set as a list and looks through it, from its beginning, for each member: a third of what an end cost, with 100 jobs
-- kept. A member too long for a list makes a tree of it, for good; whoever looks never sees it.
local function keep_ended()
  if call('OBJECT', 'ENCODING', completed) == 'skiplist' then return call('ZADD', completed, unpack(scores)) end
  -- No job's id: BullMQ takes none with so many colons.
  local long = string.rep(':', 65)
  call('ZADD', completed, now, long, unpack(scores))
  call('ZREM', completed, long)
end

-- What concerns the queue and not a job: once for all. At most 2,000 old jobs go at a time: a script holds up everybody else.
local function settle()
  call('DEL', unpack(locks))
  call('SREM', KEYS[5], unpack(ids))
  if not meta[4] then call('HSET', KEYS[9], 'opts.maxLenEvents', 10000) end
  if #scores > 0 then keep_ended() end
  if not removed and keep['age'] then
    -- As many as single ends would have removed.
    local most = math.min((keep['limit'] or 1000) * #ids, 2000)
    local old = call('ZREVRANGEBYSCORE', completed, now - keep['age'] * 1000, '-inf', 'LIMIT', 0, most)
    keep_no_more(old)
    if #old > 0 then call('ZREM', completed, unpack(old)) end
  end
  if not removed and keep['count'] and keep['count'] > 0 then
    local surplus = math.min(call('ZCARD', completed) - keep['count'], 2000)
    if surplus > 0 then
      keep_no_more(call('ZRANGE', completed, 0, surplus - 1))
      call('ZREMRANGEBYRANK', completed, 0, surplus - 1)
    end
  end
  local keys = {}
  for _, key in ipairs(gone) do
    for _, part in ipairs({'', ':logs', ':dependencies', ':processed', ':failed', ':unsuccessful'}) do keys[#keys + 1] = key .. part end
  end
  each(keys, 'DEL')
  if call('LLEN', wait) == 0 and call('LLEN', active) == 0 and call('ZCARD', prioritized) == 0 then call('XADD', events, '*', 'event', 'drained') end
end

local unsettled = false
if #ends > 0 then
  -- Raises while the log cannot be appended to: what cannot be told must not end.
  call('XLEN', KEYS[13])
  look()
  call('XTRIM', events, 'MAXLEN', '~', meta[4] or 10000)
  for at = 1, #ends do answers[#answers + 1] = ended(at) end
  if #ids > 0 then
    local ok, error = pcall(settle)
    if not ok then unsettled = tostring(error) end
  end
end

-- --- fetching ---

local wanted, jobs = tonumber(ARGV[7]), {}
if wanted == 0 then return {answers, jobs, 0, 0, false, unsettled, 0} end

-- How often it was started, then FIELDS.
local function read(key) return call('HMGET', key, 'ats', unpack(FIELDS)) end

local function hand_out(job, id, token)
  job[1], job[#job + 1] = token, id
  jobs[#jobs + 1] = job
end

-- What the first call locked is handed out again.
local function fetch_again()
  for _, id in ipairs(call('LRANGE', active, 0, -1)) do
    local lock = call('GET', prefix .. id .. ':lock')
    if lock and string.sub(lock, 1, #ARGV[8]) == ARGV[8] then hand_out(read(prefix .. id), id, lock) end
  end
end

-- What moveToActive does to each, where nothing limits the queue. A few at a time, until they are enough for one answer.
local ROOM, more = 4 * 1024 * 1024, 0
local function fetch_plain()
  while #jobs < wanted do
    if ROOM <= 0 then
      more = 1
      return
    end
    local popped, taken = call('RPOP', wait, math.min(wanted - #jobs, 8)), {}
    if not popped then return end
    for _, id in ipairs(popped) do
      -- Others are markers of BullMQ before 5.
      if string.sub(id, 1, 2) ~= '0:' then taken[#taken + 1] = id end
    end
    if #taken > 0 then
      call('LPUSH', active, unpack(taken))
      call('ZADD', KEYS[11], 0, '0')
    end
    for _, id in ipairs(taken) do
      local key, token = prefix .. id, ARGV[8] .. #jobs + 1
      local job = read(key)
      for field = 2, #job do ROOM = ROOM - #(job[field] or '') end
      call('SET', key .. ':lock', token, 'PX', lock_ms)
      call('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
      call('HSET', key, 'processedOn', now, 'pb', ARGV[4], 'ats', (job[1] or 0) + 1)
      hand_out(job, id, token)
    end
  end
end

local limit_ms, next_at = 0, 0
local function fetch_by_stock()
  local opts = {token = ARGV[8] .. #jobs + 1, lockDuration = lock_ms, name = ARGV[4]}
  if ARGV[6] ~= '' then opts.limiter = cmsgpack.unpack(ARGV[6]) end
  local found = moveToActive({unpack(KEYS, 1, 11)}, {prefix, now, cmsgpack.pack(opts)})
  if type(found[1]) == 'table' then
    hand_out(read(prefix .. found[2]), found[2], opts.token)
    return true
  end
  limit_ms, next_at = found[3], found[4]
end

local function fetch()
  if ARGV[9] ~= '' then fetch_again() end
  if #jobs > 0 then return end
  local first = call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
  local due = first[2] and tonumber(first[2]) <= (now + 1) * 0x1000 - 1
  if not (meta[1] or meta[2] or meta[3] or due) and ARGV[6] == '' then
    fetch_plain()
    if more == 1 then return end
    if #jobs < wanted and call('ZCARD', prioritized) == 0 then
      call('DEL', KEYS[10])
      next_at = first[2] and first[2] / 0x1000 or 0
      return
    end
  end
  while #jobs < wanted and fetch_by_stock() do end
end
-- The fetch must not be able to undo what was answered about the ends.
local ok, error = pcall(fetch)
return {answers, jobs, limit_ms, next_at, not ok and tostring(error) or false, unsettled, more}
