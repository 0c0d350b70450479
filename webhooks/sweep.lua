-- Retention: remove deliveries that ended long ago, with their attempts, and each event with its last delivery.
--
-- KEYS 1 prefix
-- ARGV 1 remove what ended up to (ms), 2 limit
-- Returns how many were removed.

local old = call('ZRANGEBYSCORE', FINISHED, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local gone = {}
if #old > 0 and tonumber(ARGV[1]) > (tonumber(call('GET', P .. ':swept') or '') or 0) then call('SET', P .. ':swept', ARGV[1]) end
for _, delivery in ipairs(old) do
  local d = call('HMGET', key('delivery', delivery), 'endpoint', 'event', 'status', 'run')
  drop(FINISHED, delivery)
  drop(P .. ':deliveries:all', delivery)
  if d[1] then
    drop(key('deliveries:endpoint', d[1]), delivery)
    if (d[4] or '') ~= '' then drop(key('deliveries:run', d[4]), delivery) end
    if d[3] ~= 'delivered' then drop(key('deliveries:status', d[3]), delivery) end
    gone[#gone + 1], gone[#gone + 2] = key('delivery', delivery), key('attempts', delivery)
    if call('EXISTS', key('refs', d[2])) == 0 then
      -- A hash is what events were before.
      if call('HINCRBY', key('event', d[2]), 'n', -1) <= 0 then gone[#gone + 1] = key('event', d[2]) end
    elseif call('DECR', key('refs', d[2])) <= 0 then
      gone[#gone + 1], gone[#gone + 2] = key('refs', d[2]), key('body', d[2])
    end
  end
end
write()
if #gone > 0 then call('DEL', unpack(gone)) end
return #old
