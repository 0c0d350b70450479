-- End one attempt at a job and fetch the next job: the outcome and its event are both-or-neither.
-- KEYS[1] event log
-- ARGV[1] finish | delay | retry; ARGV[2] msgpack {keys, args} of that stock script; ARGV[3] msgpack event fields ({} for none);
-- ARGV[4] msgpack {keys, args} of moveToActive, or {}
-- Returns {return code, next job or false, error of the fetch or false}.
local call, event, fetch = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local rc
if ARGV[1] == 'finish' then
  rc = moveToFinished(call[1], call[2])
elseif ARGV[1] == 'delay' then
  rc = moveToDelayed(call[1], call[2])
else
  rc = retryJob(call[1], call[2])
end
if rc == 0 and #event > 0 then redis.call('XADD', KEYS[1], '*', unpack(event)) end
if #fetch == 0 then return {rc, false, false} end
-- A Lua error rolls nothing back: the fetch must not be able to undo the answer about the finish.
local ok, found = pcall(moveToActive, fetch[1], fetch[2])
return {rc, ok and found or false, not ok and tostring(found) or false}
