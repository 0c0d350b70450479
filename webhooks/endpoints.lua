-- Change an endpoint: its definition, its status, or its existence.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 operation, 3 endpoint, 4…:
--   save    4 version it had (0: none), 5 definition, 6 created, 7 concurrency, 8 lease (ms), 9 status, 10 reason, 11 token of this change,
--           12 rate (`count/ms`, empty for none), 13 since when it has this status (ms), 14 '1' to begin its health anew, else ''
--   delete  nothing more
--   orphan  4 limit: mark pending deliveries of a deleted endpoint as skipped
-- Returns for save the new version, or -1 if it had another one; for delete 1 or 0; for orphan how many were marked.

local now, operation, endpoint = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local record = key('endpoint', endpoint)
local DELETED = P .. ':deleted'

-- Of the last deletions, and of those before as long as there are records of them, it is known that they were. What is forgotten of the changes
-- leaves its version behind, under no id: who has not come as far reads all endpoints anew.
local REMEMBERED, LOOKED_AT = 1000, 10

local function forget_deleted()
  local over = call('ZCARD', DELETED) - REMEMBERED
  if over <= 0 then return end
  for _, id in ipairs(call('ZRANGE', DELETED, 0, math.min(over, LOOKED_AT) - 1)) do
    if call('EXISTS', key('deliveries:endpoint', id)) == 0 then
      call('ZADD', P .. ':changes', 'GT', call('ZSCORE', P .. ':changes', id) or 0, '')
      call('ZREM', P .. ':changes', id)
      call('ZREM', DELETED, id)
    end
  end
end

if operation == 'save' then
  local e = call('HMGET', record, 'v', 'token')
  local had = e[1] or '0'
  if e[2] == ARGV[11] then return tonumber(had) end
  if had ~= ARGV[4] then return -1 end
  call('HSET', record, 'definition', ARGV[5], 'concurrency', ARGV[7], 'lease', ARGV[8], 'status', ARGV[9], 'reason', ARGV[10], 'token', ARGV[11],
    'rate', ARGV[12], 'since', ARGV[13])
  if ARGV[14] ~= '' then call('HDEL', record, 'heldUntil', 'openUntil', 'health') end
  call('ZADD', P .. ':endpoints', 'NX', ARGV[6], endpoint)
  if had == '0' then call('ZREM', DELETED, endpoint) end
  -- One that is declared again after its deletion takes its mailbox back.
  call('SREM', P .. ':orphans', endpoint)
  local version = call('HINCRBY', record, 'v', 1)
  changed(endpoint)
  reindex(endpoint, now)
  wake()
  return version
end

if operation == 'delete' then
  if call('DEL', record) == 0 then return 0 end
  call('ZREM', P .. ':endpoints', endpoint)
  call('ZREM', DUE, endpoint)
  call('ZREM', DUE_RETRIES, endpoint)
  call('ZREM', P .. ':shown', endpoint)
  call('DEL', key('stats', endpoint))
  call('ZADD', DELETED, ARGV[1], endpoint)
  call('SADD', P .. ':orphans', endpoint)
  changed(endpoint)
  forget_deleted()
  return 1
end

-- orphan: deliveries under way are left to settle, which skips them if they fail.
if call('EXISTS', record) == 1 then
  call('SREM', P .. ':orphans', endpoint)
  return 0
end
local limit, marked = tonumber(ARGV[4]), 0
local leases = key('leases', endpoint)
for _, kind in ipairs({'mailbox', 'retries'}) do
  for _, member in ipairs(call('ZRANGE', key(kind, endpoint), 0, limit - 1)) do
    skip(of_member(member), endpoint, 'pending', 'endpoint-deleted', ARGV[1])
    marked = marked + 1
  end
end
for _, delivery in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, limit)) do
  if call('HGET', key('delivery', delivery), 'status') == 'pending' then skip(delivery, endpoint, 'pending', 'endpoint-deleted', ARGV[1]) end
  drop(leases, delivery)
  marked = marked + 1
end
write()
if call('EXISTS', key('mailbox', endpoint), key('retries', endpoint), leases) == 0 then
  call('SREM', P .. ':orphans', endpoint)
  call('ZREM', EXPIRING, endpoint)
end
return marked
