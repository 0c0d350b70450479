-- Add one plain job, once per idempotency key.
-- KEYS[1] idempotency key; ARGV[1] msgpack {keys, args} of addStandardJob, ARGV[2] the record to keep (@job@ becomes the id), ARGV[3] seconds to keep it
-- Returns {id} or {false, the record of the first time}.
local existing = redis.call('GET', KEYS[1])
if existing then return {false, existing} end
local call = cmsgpack.unpack(ARGV[1])
local id = add(call[1], call[2])
if type(id) == 'number' and id < 0 then return {id} end
-- Last, so that a script that failed half-way answers nothing for work it did not accept.
redis.call('SET', KEYS[1], (string.gsub(ARGV[2], '@job@', id)), 'EX', ARGV[3])
return {id}
