-- Commit transitions of runs, each all or none, and only if nobody else moved its run meanwhile.
-- KEYS[1] event log, KEYS[2] timers, then two for each transition: its run, its timeline
-- ARGV[1] consumer group, then four for each transition: version read, new state, log entry to acknowledge or '', and in msgpack
--   run (its id), timeline (entries), and where there are any: jobs (for addAll), events, drop and add (index keys, the latter with the score `created`),
--   timers, over (timer members), cancel {job key, keys and args of removeJob, reason}, ended {keys and args of removeJob}
-- Returns for each 1, 0 if the version has moved, or the text of an error: then the run has not moved, or its ended job was not removed.
local call = redis.call
local TRANSITIONS = (#KEYS - 2) / 2

local function advance(key, timeline, version, state, what)
  for _, cancel in ipairs(what.cancel or {}) do
    -- A locked job is being run: its worker finds `defa` when it renews the lock, and so does whoever fetches it for another attempt.
    local job = cancel[1]
    local alive = call('EXISTS', job) == 1 and call('HEXISTS', job, 'finishedOn') == 0
    if alive and removeJob(cancel[2], cancel[3]) == 0 then call('HSET', job, 'defa', cancel[4]) end
  end
  for _, event in ipairs(what.events or {}) do call('XADD', KEYS[1], '*', unpack(event)) end
  if #what.timeline > 0 then call('RPUSH', timeline, unpack(what.timeline)) end
  if what.over then call('ZREM', KEYS[2], unpack(what.over)) end
  for _, timer in ipairs(what.timers or {}) do call('ZADD', KEYS[2], timer[1], timer[2]) end
  if what.drop then call('ZREM', what.drop, what.run) end
  if what.add then call('ZADD', what.add, what.created, what.run) end
  -- Last: a script that failed before this point has not moved the run, and is run again.
  call('HSET', key, 'state', state, 'v', version + 1)
end

local function text(reason)
  return type(reason) == 'table' and reason['err'] or tostring(reason)
end

-- Changes nothing: a full store refuses what needs memory, except after a script's first write. Runs under way must be able to end.
call('ZREM', KEYS[2], '')

local answers, work, met, jobs, owners = {}, {}, {}, {}, {}
for number = 1, TRANSITIONS do
  local key, arg = KEYS[number * 2 + 1], number * 4 - 2
  local version = redis.pcall('HGET', key, 'v')
  if type(version) == 'table' then
    answers[number] = text(version)
  elseif version == ARGV[arg] and not met[key] then
    met[key], answers[number], work[number] = true, 1, cmsgpack.unpack(ARGV[arg + 3])
    for _, job in ipairs(work[number].jobs or {}) do jobs[#jobs + 1], owners[#owners + 1] = job, number end
  else
    answers[number] = 0
  end
end
for number, reason in pairs(addAll(jobs)) do answers[owners[number]] = text(reason) end
local done = {}
for number = 1, TRANSITIONS do
  local arg = number * 4 - 2
  if answers[number] == 1 then
    local ok, reason = pcall(advance, KEYS[number * 2 + 1], KEYS[number * 2 + 2], ARGV[arg], ARGV[arg + 1], work[number])
    if not ok then answers[number] = text(reason) end
    if ok and ARGV[arg + 2] ~= '' then done[#done + 1] = ARGV[arg + 2] end
  end
end
if #done > 0 then call('XACK', KEYS[1], ARGV[1], unpack(done)) end
for number = 1, TRANSITIONS do
  local ended = answers[number] == 1 and work[number].ended
  if ended then
    local ok, reason = pcall(removeJob, ended[1], ended[2])
    if not ok then answers[number] = text(reason) end
  end
end
return answers
