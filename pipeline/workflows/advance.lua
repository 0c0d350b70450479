-- Commit transitions of runs, each all or none, and only if nobody else moved its run meanwhile.
-- KEYS[1] event log, KEYS[2] timers, then two for each transition: its run, its timeline
-- ARGV[1] consumer group, then one for each transition, in msgpack, one after the other (tables in tables would cost twice as much):
--   version read, new state, log entry to acknowledge or '', how many timeline entries, events and jobs, the timeline entries, the entry of each event
--   in the log, each job as for addAll, and what is rarer: run (its id), drop and add (index keys, the latter with the score `created`),
--   timers, over (timer members), cancel {job key, keys and args of removeJob, reason}, ended {keys and args of removeJob}
-- Returns for each 1, 0 if the version has moved, or the text of an error: then the run has not moved, or its ended job was not removed.
local call = redis.call
local TRANSITIONS = (#KEYS - 2) / 2
local VERSION, STATE, ENTRY, TIMELINE, PER_EVENT, PER_JOB = 1, 2, 3, 7, 2, 6

-- A transition, and where in it events and jobs begin.
local function unpacked(packed)
  local all = {cmsgpack.unpack(packed)}
  local events = TIMELINE + all[4]
  local jobs = events + all[5] * PER_EVENT
  local rest = jobs + all[6] * PER_JOB
  return {all = all, events = events, jobs = jobs, rest = rest, rare = all[rest]}
end

local function advance(key, timeline, what)
  local all, rare = what.all, what.rare
  for _, cancel in ipairs(rare.cancel or {}) do
    -- A locked job is being run: its worker finds `defa` when it renews the lock, and so does whoever fetches it for another attempt.
    local job = cancel[1]
    local alive = call('EXISTS', job) == 1 and call('HEXISTS', job, 'finishedOn') == 0
    if alive and removeJob(cancel[2], cancel[3]) == 0 then call('HSET', job, 'defa', cancel[4]) end
  end
  for at = what.events, what.jobs - 1, PER_EVENT do
    call('XADD', KEYS[1], '*', all[at], all[at + 1])
  end
  if what.events > TIMELINE then call('RPUSH', timeline, unpack(all, TIMELINE, what.events - 1)) end
  if rare.over then call('ZREM', KEYS[2], unpack(rare.over)) end
  for _, timer in ipairs(rare.timers or {}) do call('ZADD', KEYS[2], timer[1], timer[2]) end
  if rare.drop then call('ZREM', rare.drop, rare.run) end
  if rare.add then call('ZADD', rare.add, rare.created, rare.run) end
  -- Last: a script that failed before this point has not moved the run, and is run again.
  call('HSET', key, 'state', all[STATE], 'v', all[VERSION] + 1)
end

local function text(reason)
  return type(reason) == 'table' and reason['err'] or tostring(reason)
end

-- Changes nothing: a full store refuses what needs memory, except after a script's first write. Runs under way must be able to end.
call('ZREM', KEYS[2], '')

local answers, work, met, jobs, owners = {}, {}, {}, {}, {}
for number = 1, TRANSITIONS do
  local key, what = KEYS[number * 2 + 1], unpacked(ARGV[number + 1])
  local version = redis.pcall('HGET', key, 'v')
  if type(version) == 'table' then
    answers[number] = text(version)
  elseif version == what.all[VERSION] and not met[key] then
    met[key], answers[number], work[number] = true, 1, what
    for at = what.jobs, what.rest - 1, PER_JOB do jobs[#jobs + 1], owners[#owners + 1] = {unpack(what.all, at, at + PER_JOB - 1)}, number end
  else
    answers[number] = 0
  end
end
for number, reason in pairs(addAll(jobs)) do answers[owners[number]] = text(reason) end
local done = {}
for number = 1, TRANSITIONS do
  if answers[number] == 1 then
    local ok, reason = pcall(advance, KEYS[number * 2 + 1], KEYS[number * 2 + 2], work[number])
    if not ok then answers[number] = text(reason) end
    local entry = work[number].all[ENTRY]
    if ok and entry ~= '' then done[#done + 1] = entry end
  end
end
if #done > 0 then call('XACK', KEYS[1], ARGV[1], unpack(done)) end
for number = 1, TRANSITIONS do
  local ended = answers[number] == 1 and work[number].rare.ended
  if ended then
    local ok, reason = pcall(removeJob, ended[1], ended[2])
    if not ok then answers[number] = text(reason) end
  end
end
return answers
