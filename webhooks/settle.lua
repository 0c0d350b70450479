-- Settle: record a batch of outcomes. A stale token records its attempt, but only a success of it changes the delivery.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 in MessagePack: [{id, token, verdict: delivered|retry|exhausted|released, due, hold, gone, version, code, attempt (JSON text), notice (JSON text)}…]
--   hold     ms since the epoch until which the endpoint wants nothing
--   gone     JSON text of the event to publish if this disables the endpoint, absent if the receiver did not say 410
--   version  of the endpoint that was dialled: a 410 says nothing about a later one
--   notice   JSON text of the event to publish if this exhausts the delivery
-- Returns for each item: ok, stale, repeated or missing.

local now = tonumber(ARGV[1])
local results, touched = {}, {}

local function effects(item, endpoint)
  local e = call('HMGET', key('endpoint', endpoint), 'status', 'v', 'heldUntil')
  if not e[1] then return end
  if item.hold and item.hold > tonumber(e[3] or '0') then
    call('HSET', key('endpoint', endpoint), 'heldUntil', int(item.hold))
  end
  if item.gone and e[1] ~= 'disabled' and e[2] == int(item.version) then
    call('HSET', key('endpoint', endpoint), 'status', 'disabled', 'reason', 'the receiver answered 410 Gone')
    call('HINCRBY', key('endpoint', endpoint), 'v', 1)
    changed(endpoint)
    if item.gone ~= '' then call('RPUSH', P .. ':outbox', item.gone) end
  end
end

local function settle(item)
  local record = key('delivery', item.id)
  local d = call('HMGET', record, 'endpoint', 'status', 'lease', 'settled')
  local endpoint, status = d[1], d[2]
  if not endpoint then return 'missing' end
  if d[4] == item.token then return 'repeated' end
  local current = d[3] == item.token
  touched[endpoint] = true
  if item.verdict == 'released' then
    if not current then return 'stale' end
    call('HDEL', record, 'lease')
    call('ZREM', key('leases', endpoint), item.id)
    call('HSET', record, 'due', ARGV[1])
    call('ZADD', key('mailbox', endpoint), ARGV[1], item.id)
    return 'ok'
  end
  attempt(item.id, item.attempt)
  call('HSET', record, 'settled', item.token)
  if item.code then call('HSET', record, 'code', int(item.code)) else call('HDEL', record, 'code') end
  effects(item, endpoint)
  if item.verdict == 'delivered' then
    if status ~= 'delivered' then move(item.id, endpoint, status, 'delivered', now) end
  elseif current and status == 'pending' then
    call('HDEL', record, 'lease')
    call('ZREM', key('leases', endpoint), item.id)
    if call('EXISTS', key('endpoint', endpoint)) == 0 then
      skip(item.id, endpoint, 'pending', 'endpoint-deleted', now)
    elseif item.verdict == 'retry' then
      local due = int(item.due)
      call('HSET', record, 'due', due)
      call('ZADD', key('mailbox', endpoint), due, item.id)
    else
      move(item.id, endpoint, 'pending', 'exhausted', now)
      if item.notice then call('RPUSH', P .. ':outbox', item.notice) end
    end
  end
  return current and 'ok' or 'stale'
end

-- A full store refuses a script at its first write that needs memory, and lets it go on after one that does not: what was sent must be recorded.
call('DEL', P .. ':full')
for n, item in ipairs(cmsgpack.unpack(ARGV[2])) do results[n] = settle(item) end
for endpoint in pairs(touched) do reindex(endpoint, now, false) end
-- A slot that became free, or a retry that is due before the sleeping dispatcher meant to wake up.
if next(touched) then wake() end
return results
