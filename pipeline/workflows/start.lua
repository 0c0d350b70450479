-- Start a run: its first jobs, workflow.started, its state, and the answer to the request that asked for it.
-- KEYS[1] idempotency key, KEYS[2] run, KEYS[3] event log, KEYS[4] timeline, KEYS[5] timers, KEYS[6] definition
-- ARGV[1] record of the answer (@job@ becomes the trigger's job id), ARGV[2] seconds to keep it, ARGV[3] state, ARGV[4] definition
-- ARGV[5] msgpack: jobs {keys, args, trigger?}, events, timeline entries, index keys, timers {due, member}; ARGV[6] score of the indexes
-- Returns {1, id of the trigger's job or ''}, or {0, the record of the first time}.
local existing = redis.call('GET', KEYS[1])
if existing then return {0, existing} end
local what = cmsgpack.unpack(ARGV[5])
local triggered = ''
for _, job in ipairs(what.jobs) do
  local id = add(job[1], job[2])
  if type(id) == 'number' and id < 0 then return redis.error_reply('HOOKLINE cannot add a job: ' .. id) end
  if job[3] == '1' then triggered = id .. '' end
end
for _, event in ipairs(what.events) do redis.call('XADD', KEYS[3], '*', unpack(event)) end
redis.call('RPUSH', KEYS[4], unpack(what.timeline))
for _, timer in ipairs(what.timers) do redis.call('ZADD', KEYS[5], timer[1], timer[2]) end
redis.call('SET', KEYS[6], ARGV[4])
for _, index in ipairs(what.indexes) do redis.call('ZADD', index, ARGV[6], what.run) end
if triggered ~= '' then redis.call('HSET', KEYS[2], 'job', triggered) end
redis.call('HSET', KEYS[2], 'v', 1, 'state', ARGV[3])
-- Last, so that a script that failed half-way answers nothing for a run it did not write.
redis.call('SET', KEYS[1], (string.gsub(ARGV[1], '@job@', triggered)), 'EX', ARGV[2])
return {1, triggered}
