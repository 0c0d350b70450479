-- Presence: a dispatcher says that it lives; what those hold that no longer do is due at once.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 dispatcher, 3 ms for which it counts as living, by the store's own clock, 4 '1' to look after the others, '' not to,
--   5… those whose process is known to be over
-- Returns how many deliveries were taken back, and 1 if there may be more.

local MOST = 100
local LIVING = P .. ':dispatchers'
call('SET', key('alive', ARGV[2]), '1', 'PX', ARGV[3])
call('SADD', LIVING, ARGV[2])
local over = {}
for n = 5, #ARGV do over[ARGV[n]] = true end

local freed, room = 0, MOST
for _, other in ipairs(call('SMEMBERS', LIVING)) do
  local silent = call('EXISTS', key('alive', other)) == 0
  if room > 0 and (over[other] or silent and ARGV[4] ~= '') then
    local held = key('held', other)
    local claims = call('ZRANGE', held, 0, room - 1)
    room = room - #claims
    for _, claim in ipairs(claims) do
      for _, round in ipairs(cmsgpack.unpack(call('GET', key('claim', claim)) or '\144')) do
        local leases = key('leases', round[1])
        local theirs = call('ZRANGEBYSCORE', leases, round[2], round[2])
        -- The next claim does the rest, as with every lease that ran out. Should one of a living dispatcher end at the same µs, that is sent twice.
        for _, delivery in ipairs(theirs) do put(leases, ARGV[1], delivery) end
        if #theirs > 0 then call('ZADD', EXPIRING, 'LT', ARGV[1], round[1]) end
        freed = freed + #theirs
      end
    end
    if #claims > 0 then call('ZREM', held, unpack(claims)) end
    -- What it asked for last may still be on its way here: it is looked at again until it has been silent, too.
    if silent and call('EXISTS', held) == 0 then call('SREM', LIVING, other) end
  end
end
write()
if freed > 0 then wake() end
return {freed, room > 0 and 0 or 1}
