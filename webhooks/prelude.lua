-- What every script of this package shares: the keys (as keys.py builds them), the index of endpoints, the end of a delivery.
--
-- A delivery's hash has, beside what model.Delivery shows:
--   lease    token of the claim that may settle it; absent unless it is being attempted
--   settled  token of the claim that was settled last: the same one again is a repetition after a lost reply
--   base     how many attempts were made before the present round of its schedule (a replay starts a new one)
-- Times are ms since the epoch, passed in: scripts that read the store's clock could not be tested at a given instant.

local P = KEYS[1]
local call = redis.call
local MAX_ATTEMPTS = 50

-- Lua writes large numbers with an exponent.
local function int(number) return string.format('%.0f', number) end

local function key(kind, id) return P .. ':' .. kind .. ':' .. id end
local DUE = P .. ':due'
local WAKE = P .. ':wake'

-- One marker is enough: whoever takes it claims, and leaves another behind if there is more than it could take.
local function wake()
  if call('LLEN', WAKE) == 0 then call('LPUSH', WAKE, '1') end
end

-- Where an endpoint stands in the index: when its mailbox can next be claimed, or when its first lease runs out.
-- An endpoint that was just served goes behind those that wait; one that has been waiting keeps its place.
local function reindex(endpoint, now, served)
  local e = call('HMGET', key('endpoint', endpoint), 'status', 'concurrency', 'heldUntil')
  if e[1] ~= 'enabled' then
    call('ZREM', DUE, endpoint)
    return
  end
  local at = nil
  if call('ZCARD', key('leases', endpoint)) < tonumber(e[2]) then
    local head = call('ZRANGE', key('mailbox', endpoint), 0, 0, 'WITHSCORES')
    if head[2] then
      at = math.max(tonumber(head[2]), tonumber(e[3] or '0'))
      if at <= now then
        local place = tonumber(call('ZSCORE', DUE, endpoint) or '0')
        if served then at = now + 1 elseif place >= at and place <= now then at = place else at = now end
      end
    end
  end
  local lease = call('ZRANGE', key('leases', endpoint), 0, 0, 'WITHSCORES')
  if lease[2] and (not at or tonumber(lease[2]) < at) then at = tonumber(lease[2]) end
  if at then call('ZADD', DUE, int(at), endpoint) else call('ZREM', DUE, endpoint) end
end

-- A delivery record's status changes; its indices and its place in the mailbox follow.
local function move(delivery, endpoint, from, to, now)
  call('ZREM', key('mailbox', endpoint), delivery)
  call('ZREM', key('leases', endpoint), delivery)
  local created = call('HGET', key('delivery', delivery), 'created')
  if not created then return end
  call('HDEL', key('delivery', delivery), 'lease', 'due', 'reason')
  call('HSET', key('delivery', delivery), 'status', to)
  if from ~= 'delivered' then call('ZREM', key('deliveries:status', from), delivery) end
  if to ~= 'delivered' then call('ZADD', key('deliveries:status', to), created, delivery) end
  if to == 'pending' then
    call('HDEL', key('delivery', delivery), 'finished')
    call('ZREM', P .. ':finished', delivery)
  else
    call('HSET', key('delivery', delivery), 'finished', int(now))
    call('ZADD', P .. ':finished', int(now), delivery)
  end
end

local function skip(delivery, endpoint, from, reason, now)
  move(delivery, endpoint, from, 'skipped', now)
  if call('EXISTS', key('delivery', delivery)) == 1 then call('HSET', key('delivery', delivery), 'reason', reason) end
end

-- Number an attempt and keep it. `record` is a JSON object without the number.
local function attempt(delivery, record)
  local number = call('HINCRBY', key('delivery', delivery), 'attempts', 1)
  call('RPUSH', key('attempts', delivery), '{"number":' .. number .. ',' .. string.sub(record, 2))
  call('LTRIM', key('attempts', delivery), -MAX_ATTEMPTS, -1)
  return number
end

-- A change of an endpoint, so that every process that caches endpoints reads it again.
local function changed(endpoint)
  call('ZADD', P .. ':changes', call('INCR', P .. ':version'), endpoint)
end
