-- Retention: remove deliveries that ended long ago, with their attempts, and each event with its last delivery.
--
-- KEYS 1 prefix
-- ARGV 1 remove what ended up to (ms), 2 limit
-- Returns how many were removed.

local old = call('ZRANGEBYSCORE', P .. ':finished', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, delivery in ipairs(old) do
  local d = call('HMGET', key('delivery', delivery), 'endpoint', 'event', 'status')
  call('ZREM', P .. ':finished', delivery)
  call('ZREM', P .. ':deliveries:all', delivery)
  if d[1] then
    call('ZREM', key('deliveries:endpoint', d[1]), delivery)
    call('ZREM', key('deliveries:status', d[3]), delivery)
    call('DEL', key('delivery', delivery), key('attempts', delivery))
    if call('HINCRBY', key('event', d[2]), 'n', -1) <= 0 then call('DEL', key('event', d[2])) end
  end
end
return #old
