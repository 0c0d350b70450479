-- Commit one transition of a run: all of it or none, and only if nobody else moved the run meanwhile.
-- KEYS[1] run, KEYS[2] event log, KEYS[3] timeline, KEYS[4] timers
-- ARGV[1] version read, ARGV[2] state, ARGV[3] msgpack: jobs, events, timeline, drop and add (index keys), timers, over (timer members),
--   cancel {job key, prefix, id, keys and args of removeJob, reason}, ended {keys and args of removeJob}; ARGV[4] score of the indexes
-- ARGV[5] consumer group and ARGV[6] log entry to acknowledge, or ''
-- Returns 1, or 0 if the version has moved.
if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then return 0 end
-- Changes nothing: a full store refuses what needs memory, except after a script's first write. Runs under way must be able to end.
redis.call('HDEL', KEYS[1], '')
local what = cmsgpack.unpack(ARGV[3])
for _, job in ipairs(what.jobs) do
  local id = add(job[1], job[2])
  if type(id) == 'number' and id < 0 then return redis.error_reply('HOOKLINE cannot add a job: ' .. id) end
end
for _, cancel in ipairs(what.cancel) do
  -- A locked job is being run: its worker finds `defa` when it renews the lock, and so does whoever fetches it for another attempt.
  local key = cancel[1]
  local alive = redis.call('EXISTS', key) == 1 and redis.call('HEXISTS', key, 'finishedOn') == 0
  if alive and removeJob(cancel[2], cancel[3]) == 0 then redis.call('HSET', key, 'defa', cancel[4]) end
end
for _, event in ipairs(what.events) do redis.call('XADD', KEYS[2], '*', unpack(event)) end
if #what.timeline > 0 then redis.call('RPUSH', KEYS[3], unpack(what.timeline)) end
if #what.over > 0 then redis.call('ZREM', KEYS[4], unpack(what.over)) end
for _, timer in ipairs(what.timers) do redis.call('ZADD', KEYS[4], timer[1], timer[2]) end
for _, index in ipairs(what.drop) do redis.call('ZREM', index, what.run) end
for _, index in ipairs(what.add) do redis.call('ZADD', index, ARGV[4], what.run) end
-- Last: a script that failed before this point has not moved the run, and is run again.
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'v', ARGV[1] + 1)
if ARGV[6] ~= '' then redis.call('XACK', KEYS[2], ARGV[5], ARGV[6]) end
for _, job in ipairs(what.ended) do removeJob(job[1], job[2]) end
return 1
