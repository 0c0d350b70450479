-- Report a job's progress, and append the event if the job still exists.
-- KEYS[1] event log; ARGV[1] msgpack {keys, args} of updateProgress, ARGV[2] msgpack event fields
local call = cmsgpack.unpack(ARGV[1])
local rc = updateProgress(call[1], call[2])
if rc == 0 then redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(ARGV[2]))) end
return rc
