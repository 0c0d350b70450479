-- End one attempt at a job: the outcome and its event are both-or-neither.
-- KEYS[1] event log, KEYS[2] active, KEYS[3] the job's lock
-- ARGV[1] finish | delay | retry; ARGV[2] msgpack {keys, args} of that stock script; ARGV[3] msgpack event fields ({} for none);
-- ARGV[4] job id, ARGV[5] token, ARGV[6] lock ms
-- Returns {return code, error after the end or false}.
-- What cannot be told must not end.
redis.call('XLEN', KEYS[1])
local call, event = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local scripts = {finish = moveToFinished, delay = moveToDelayed, retry = retryJob}
-- The lock may have run out (an outage, a blocked loop); as long as the job is active and nobody else has locked it, it is ours.
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('LPOS', KEYS[2], ARGV[4]) then redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6]) end
local ok, rc = pcall(scripts[ARGV[1]], call[1], call[2])
-- A Lua error rolls nothing back. If it came after the job had left `active`, the end stands, and so must its event.
if not ok and redis.call('LPOS', KEYS[2], ARGV[4]) then return redis.error_reply('HOOKLINE ' .. tostring(rc)) end
if (not ok or rc == 0) and #event > 0 then redis.call('XADD', KEYS[1], '*', unpack(event)) end
if not ok then return {0, tostring(rc)} end
return {rc, false}
