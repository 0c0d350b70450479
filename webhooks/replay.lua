-- Replay: a delivery that ended is pending again, due now, with a new round of its schedule. Where order is kept, it stands in its line at its old place:
-- it comes next after the one that has its turn.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 delivery, 3 token of this request
-- Returns ok, missing, pending, no-endpoint or disabled.

local now, delivery, token = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local record = key('delivery', delivery)
local d = call('HMGET', record, 'status', 'endpoint', 'attempts', 'replayed', 'created', 'line')
if not d[1] then return 'missing' end
if d[4] == token then return 'ok' end
if d[1] == 'pending' then return 'pending' end
local status = call('HGET', key('endpoint', d[2]), 'status')
if not status then return 'no-endpoint' end
if status == 'disabled' then return 'disabled' end
call('HSET', record, 'status', 'pending', 'reason', '', 'finished', '', 'base', d[3] or '0', 'due', ARGV[1], 'replayed', token)
note(delivery, d[2], d[5], d[1], 'pending', ARGV[1])
if not d[6] or enter(d[2], delivery, d[6]) then put(key('mailbox', d[2]), ARGV[1], delivery) end
write()
reindex(d[2], now)
wake()
return 'ok'
