-- End one attempt at a job and fetch the next job: the outcome and its event are both-or-neither.
-- KEYS[1] event log, KEYS[2] active, KEYS[3] the job's lock
-- ARGV[1] finish | delay | retry; ARGV[2] msgpack {keys, args} of that stock script; ARGV[3] msgpack event fields ({} for none);
-- ARGV[4] msgpack {keys, args} of moveToActive, or {}; ARGV[5] job id, ARGV[6] token, ARGV[7] lock ms
-- Returns {return code, next job or false, error after the end or false}.
local call, event, fetch = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local scripts = {finish = moveToFinished, delay = moveToDelayed, retry = retryJob}
-- The lock may have run out (an outage, a blocked loop); as long as the job is active and nobody else has locked it, it is ours.
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('LPOS', KEYS[2], ARGV[5]) then redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7]) end
local ok, rc = pcall(scripts[ARGV[1]], call[1], call[2])
if not ok then
  -- A Lua error rolls nothing back. If it came after the job had left `active`, the end stands, and so must its event.
  if redis.call('LPOS', KEYS[2], ARGV[5]) then return redis.error_reply('HOOKLINE ' .. tostring(rc)) end
  if #event > 0 then redis.call('XADD', KEYS[1], '*', unpack(event)) end
  return {0, false, tostring(rc)}
end
if rc == 0 and #event > 0 then redis.call('XADD', KEYS[1], '*', unpack(event)) end
if #fetch == 0 then return {rc, false, false} end
-- A Lua error rolls nothing back: the fetch must not be able to undo the answer about the finish.
local fetched, found = pcall(moveToActive, fetch[1], fetch[2])
return {rc, fetched and found or false, not fetched and tostring(found) or false}
