-- Claim: what each endpoint's concurrency allows of what is due, under a lease; leases that ran out are taken back first.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 limit, 3 token of this claim
-- Returns {version of the endpoints, when something can next be claimed or '', [delivery, endpoint, event, type, run, attempts, base]…, [event, body…]}

local now, limit, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local MAX_VISITS = 1000
local LOST = '{"at":' .. ARGV[1] .. ',"duration":null,"status":null,"error":"the sending process died; the request may have arrived","response":null,"address":null}'

-- What this very claim took before its reply was lost.
local mine = key('claim', token)
local taken = call('LRANGE', mine, 0, -1)
local again = #taken > 0

local function reclaim(endpoint)
  for _, delivery in ipairs(call('ZRANGEBYSCORE', key('leases', endpoint), '-inf', now, 'LIMIT', 0, 100)) do
    call('ZREM', key('leases', endpoint), delivery)
    if call('HGET', key('delivery', delivery), 'status') == 'pending' then
      call('HDEL', key('delivery', delivery), 'lease')
      call('HSET', key('delivery', delivery), 'due', ARGV[1])
      call('ZADD', key('mailbox', endpoint), ARGV[1], delivery)
      attempt(delivery, LOST)
      -- Our process failed, not the receiver: it does not count against the schedule.
      call('HINCRBY', key('delivery', delivery), 'base', 1)
    end
  end
end

local function take(endpoint)
  local e = call('HMGET', key('endpoint', endpoint), 'status', 'concurrency', 'lease', 'heldUntil')
  if e[1] ~= 'enabled' then
    call('ZREM', DUE, endpoint)
    return
  end
  reclaim(endpoint)
  local room = math.min(tonumber(e[2]) - call('ZCARD', key('leases', endpoint)), limit - #taken)
  if room > 0 and tonumber(e[4] or '0') <= now then
    for _, delivery in ipairs(call('ZRANGEBYSCORE', key('mailbox', endpoint), '-inf', now, 'LIMIT', 0, room)) do
      call('ZREM', key('mailbox', endpoint), delivery)
      if call('EXISTS', key('delivery', delivery)) == 1 then
        call('ZADD', key('leases', endpoint), int(now + tonumber(e[3])), delivery)
        call('HSET', key('delivery', delivery), 'lease', token)
        call('HDEL', key('delivery', delivery), 'due')
        taken[#taken + 1] = delivery
      end
    end
  end
  reindex(endpoint, now, true)
end

if not again then
  local visits = 0
  while #taken < limit and visits < MAX_VISITS do
    local endpoints = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 50)
    if #endpoints == 0 then break end
    for _, endpoint in ipairs(endpoints) do
      visits = visits + 1
      if #taken < limit then take(endpoint) end
    end
  end
  if #taken > 0 then
    call('RPUSH', mine, unpack(taken))
    call('PEXPIRE', mine, 60000)
  end
end

local head = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
-- This claimer may have no room for more, but another one may.
if #taken > 0 and head[2] and tonumber(head[2]) <= now + 1 then wake() end

local claims, bodies, seen = {}, {}, {}
for _, delivery in ipairs(taken) do
  local d = call('HMGET', key('delivery', delivery), 'endpoint', 'event', 'type', 'run', 'attempts', 'base', 'lease')
  if d[7] == token then
    claims[#claims + 1] = {delivery, d[1], d[2], d[3], d[4] or '', d[5] or '0', d[6] or '0'}
    if not seen[d[2]] then
      seen[d[2]] = true
      bodies[#bodies + 1] = d[2]
      bodies[#bodies + 1] = call('HGET', key('event', d[2]), 'body') or ''
    end
  end
end
return {call('GET', P .. ':version') or '0', head[2] or '', claims, bodies}
