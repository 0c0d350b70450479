-- A callback: keep its answer if it is the first and in time, and put the job that waits for it back to work.
-- KEYS[1] callback record
-- ARGV[1] answer (JSON), ARGV[2] now, ARGV[3] job key, ARGV[4] msgpack {keys, args} of promote
-- Returns accepted, unknown, repeated, late or gone.
local record = redis.call('HMGET', KEYS[1], 'deadline', 'answer', 'sent')
if not record[1] then return 'unknown' end
if record[2] then return 'repeated' end
if tonumber(ARGV[2]) > tonumber(record[1]) then return 'late' end
if redis.call('EXISTS', ARGV[3]) == 0 then return 'gone' end
redis.call('HSET', KEYS[1], 'answer', ARGV[1])
-- Only a held job is put back: one that is not held yet finds the answer (hold.lua), and one that waits for another attempt is not concerned.
if record[3] then
  local call = cmsgpack.unpack(ARGV[4])
  promote(call[1], call[2])
end
return 'accepted'
