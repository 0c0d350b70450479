-- A pushed job was answered with 202: hold it, without a worker's slot, until its callback or its deadline.
-- KEYS[1] callback record, KEYS[2] event log, KEYS[3] active, KEYS[4] the job's lock
-- ARGV[1] msgpack {keys, args} of moveToDelayed (skipAttempt), ARGV[2] msgpack fields of workflow.step.waiting ({} for none); ARGV[3] job id, ARGV[4] token, ARGV[5] lock ms
-- Returns {1} if the answer is already there, else {0, return code of moveToDelayed}.
if redis.call('HEXISTS', KEYS[1], 'answer') == 1 then return {1, 0} end
local call, event = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
-- As in finish.lua: a lock that ran out is taken again as long as the job is active and nobody else has locked it.
if redis.call('EXISTS', KEYS[4]) == 0 and redis.call('LPOS', KEYS[3], ARGV[3]) then redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[5]) end
local rc = moveToDelayed(call[1], call[2])
if rc == 0 then
  redis.call('HSET', KEYS[1], 'sent', '1')
  if #event > 0 then redis.call('XADD', KEYS[2], '*', unpack(event)) end
end
return {0, rc}
