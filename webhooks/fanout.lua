-- Fan out: delivery records created if absent, mailboxes filled, log entries acknowledged. All of it may be repeated.
--
-- KEYS 1 prefix, 2 the log
-- ARGV 1 now, 2 version of the endpoints that were matched against, 3 group, 4 in MessagePack:
--   {acks: [stream id…], events: [{id, type, run, body, to: [[endpoint, delivery id, ms until the first attempt]…]}…]}
-- Returns the number of deliveries created, or -1 if an endpoint has changed since: match again.

local now, at = tonumber(ARGV[1]), ARGV[1]
if (call('GET', P .. ':version') or '0') ~= ARGV[2] then return -1 end
local work = cmsgpack.unpack(ARGV[4])
local created = 0
local filled = {}
for _, event in ipairs(work.events) do
  local fresh = 0
  for _, to in ipairs(event.to) do
    local endpoint, delivery = to[1], to[2]
    local record = key('delivery', delivery)
    if call('EXISTS', record) == 0 then
      local status = call('HGET', key('endpoint', endpoint), 'status')
      if status then
        fresh = fresh + 1
        call('HSET', record, 'event', event.id, 'endpoint', endpoint, 'type', event.type, 'created', at)
        if event.run ~= '' then call('HSET', record, 'run', event.run) end
        call('ZADD', P .. ':deliveries:all', at, delivery)
        call('ZADD', key('deliveries:endpoint', endpoint), at, delivery)
        if status == 'disabled' then
          call('HSET', record, 'status', 'skipped', 'reason', 'endpoint-disabled', 'finished', at)
          call('ZADD', key('deliveries:status', 'skipped'), at, delivery)
          call('ZADD', P .. ':finished', at, delivery)
        else
          local due = int(now + to[3])
          call('HSET', record, 'status', 'pending', 'due', due)
          call('ZADD', key('deliveries:status', 'pending'), at, delivery)
          call('ZADD', key('mailbox', endpoint), due, delivery)
          filled[endpoint] = true
        end
      end
    end
  end
  if fresh > 0 then
    call('HSETNX', key('event', event.id), 'body', event.body)
    call('HINCRBY', key('event', event.id), 'n', fresh)
    created = created + fresh
  end
end
for endpoint in pairs(filled) do reindex(endpoint, now, false) end
if next(filled) then wake() end
-- Last: should anything above fail, the entries are read again.
if #work.acks > 0 then call('XACK', KEYS[2], ARGV[3], unpack(work.acks)) end
return created
