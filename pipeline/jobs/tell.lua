-- Tell of a job that a foreign worker ended, once, however many ask.
-- KEYS[1] mark of this end, KEYS[2] event log, KEYS[3] the job, KEYS[4] ended jobs that are kept, newest first
-- ARGV[1] finishedOn and ARGV[2] attempts made, as they were read; ARGV[3] msgpack event fields, ARGV[4] seconds that the mark lasts
-- ARGV[5] how many ended jobs are kept, or '' where keeping is not ours; ARGV[6] the queue's prefix, ARGV[7] job id
-- Returns 1, or 0 if it was told before or has changed since it was read.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local read = redis.call('HMGET', KEYS[3], 'finishedOn', 'atm')
if read[1] ~= ARGV[1] or (read[2] or '') ~= ARGV[2] then return 0 end
-- Changes nothing: a full store refuses what needs memory, except after a script's first write. Jobs that ended must be told of.
redis.call('HDEL', KEYS[3], '')
redis.call('XADD', KEYS[2], '*', unpack(cmsgpack.unpack(ARGV[3])))
-- After the event: if that failed, it is told later; told twice, it would have the same id.
redis.call('SET', KEYS[1], '1', 'EX', ARGV[4])
if ARGV[5] == '' then return 1 end
redis.call('LPUSH', KEYS[4], ARGV[7])
while redis.call('LLEN', KEYS[4]) > tonumber(ARGV[5]) do
  local id = redis.call('RPOP', KEYS[4])
  local key = ARGV[6] .. id
  -- One that somebody has put back into its queue is not an ended job any more.
  if redis.call('HEXISTS', key, 'finishedOn') == 1 then removeJob({key, ARGV[6] .. 'repeat'}, {id, '0', ARGV[6]}) end
end
return 1
