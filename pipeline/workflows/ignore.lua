-- Acknowledge the end of an external job that is no news to its run (read twice, or too late), and remove the job.
-- KEYS[1] event log; ARGV[1] consumer group, ARGV[2] log entry, ARGV[3] msgpack {keys, args} of removeJob
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
local job = cmsgpack.unpack(ARGV[3])
removeJob(job[1], job[2])
