-- A callback: keep its answer if it is the first, in time and still of use, and put the job that waits for it back to work.
-- KEYS[1] callback record
-- ARGV[1] answer (JSON), ARGV[2] now, ARGV[3] job key, ARGV[4] msgpack {keys, args} of promote, ARGV[5] a name for this call
-- Returns accepted, unknown, repeated, late, over or gone.
local record = redis.call('HMGET', KEYS[1], 'deadline', 'answer', 'sent', 'closed', 'timestamp', 'attempt', 'by')
if not record[1] then return 'unknown' end
-- The same call, sent again because its reply was lost, is told the same.
if record[2] then return record[7] == ARGV[5] and 'accepted' or 'repeated' end
if tonumber(ARGV[2]) > tonumber(record[1]) then return 'late' end
local job = redis.call('HMGET', ARGV[3], 'timestamp', 'defa', 'atm')
-- Removed (and perhaps another was added under its id), or about to be failed because its run was cancelled or its step timed out.
if not job[1] or job[1] ~= record[5] or job[2] then return 'gone' end
-- An accepted answer is one that counts: not that of an attempt which has ended, or is just ending, without it.
if record[4] or tonumber(job[3] or 0) + 1 ~= tonumber(record[6]) then return 'over' end
redis.call('HSET', KEYS[1], 'answer', ARGV[1], 'by', ARGV[5])
-- Only a held job is put back; one that is not held yet finds the answer (hold.lua, and close in callbacks.py).
if record[3] then
  local call = cmsgpack.unpack(ARGV[4])
  promote(call[1], call[2])
end
return 'accepted'
