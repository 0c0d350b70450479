-- Fan out: delivery records created if absent, mailboxes filled, log entries acknowledged. All of it may be repeated.
--
-- KEYS 1 prefix, 2 the log
-- ARGV 1 now, 2 version of the endpoints that were matched against, 3 group, 4 in MessagePack:
--   {acks: [stream id…], first: stream id of the earliest entry that is done here, if there is a line in this, rest: whether nobody wants what follows,
--    events: [{id, type, run, body, to: [[endpoint, delivery id, ms until the first attempt, why it is skipped or nil, line or nil]…]}…]}
-- Returns the number of deliveries created; -1 if an endpoint has changed since: match again; -2 if others have yet to do earlier entries: wait.

local now, at = tonumber(ARGV[1]), ARGV[1]
if (call('GET', P .. ':version') or '0') ~= ARGV[2] then return -1 end
local work = cmsgpack.unpack(ARGV[4])
local created = 0

local function number(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end

-- Lines are in the order of the log only if nobody's earlier entries come after these. Without a group nothing is pending.
local function early()
  local pending = redis.pcall('XPENDING', KEYS[2], ARGV[3])
  if pending.err or pending[1] == 0 then return false end
  local ms, sequence = number(pending[2])
  local first_ms, first_sequence = number(work.first)
  return ms < first_ms or (ms == first_ms and sequence < first_sequence)
end

if work.first and early() then return -2 end

-- Whether none of these records exists: so it is, unless the entries were read before.
local function all_new()
  local keys = {}
  for _, event in ipairs(work.events) do
    for _, to in ipairs(event.to) do keys[#keys + 1] = key('delivery', to[2]) end
  end
  for from = 1, #keys, 5000 do
    if call('EXISTS', unpack(keys, from, math.min(from + 4999, #keys))) > 0 then return false end
  end
  return true
end

local endpoints, filled = {}, {}

local function endpoint_of(id)
  if not endpoints[id] then
    local e = call('HMGET', key('endpoint', id), 'status', 'heldUntil', 'openUntil')
    endpoints[id] = {status = e[1], rest = rests_until(e[2], e[3]), due = FULL, mailbox = key('mailbox', id)}
  end
  return endpoints[id]
end

local function create(event, id, delivery, delay, skipped, line)
  local e = endpoint_of(id)
  if not e.status then return 0 end
  local record = key('delivery', delivery)
  -- What the filter leaves out comes first: it would not be wanted of an endpoint that is enabled either.
  local reason = skipped or (e.status == 'disabled' and 'endpoint-disabled')
  if reason then
    call('HSET', record, 'event', event.id, 'endpoint', id, 'type', event.type, 'run', event.run, 'created', at,
      'status', 'skipped', 'reason', reason, 'finished', at)
    note(delivery, id, at, nil, 'skipped', at, event.run)
    return 1
  end
  local due = now + delay
  local text = delay == 0 and at or int(due)
  call('HSET', record, 'event', event.id, 'endpoint', id, 'type', event.type, 'run', event.run, 'created', at, 'status', 'pending', 'due', text)
  note(delivery, id, at, nil, 'pending', at, event.run)
  if line then
    call('HSET', record, 'line', line)
    if not enter(id, delivery, line) then return 1 end
  end
  put(e.mailbox, text, line and delivery or untried(delivery, event.id))
  if e.due == FULL and e.status == 'enabled' then filled[#filled + 1] = id end
  e.due = math.min(e.due, due)
  return 1
end

-- What nobody has read yet of the log counts as read; of one that is gone, there is nothing. Before Redis 7 nobody counts.
local function step_over()
  local log, count = redis.pcall('XINFO', 'STREAM', KEYS[2]), {}
  for at = 1, #log, 2 do
    if log[at] == 'entries-added' then count = {'ENTRIESREAD', log[at + 1]} end
  end
  redis.pcall('XGROUP', 'SETID', KEYS[2], ARGV[3], '$', unpack(count))
end

local new, bodies = all_new(), {}
for _, event in ipairs(work.events) do
  local fresh = 0
  for _, to in ipairs(event.to) do
    if new or call('EXISTS', key('delivery', to[2])) == 0 then fresh = fresh + create(event, to[1], to[2], to[3], to[4], to[5]) end
  end
  if fresh > 0 then
    bodies[#bodies + 1], bodies[#bodies + 2] = key('body', event.id), event.body
    call('INCRBY', key('refs', event.id), fresh)
    created = created + fresh
  end
end
if #bodies > 0 then call('MSET', unpack(bodies)) end
if #filled > 0 then
  local moved = false
  for n, place in ipairs(call('ZMSCORE', DUE, unpack(filled))) do
    local e = endpoints[filled[n]]
    local due = math.max(e.due, e.rest)
    -- One without a free slot stays where it is, and so does one that waits already.
    if not place or (tonumber(place) < FULL and due < tonumber(place)) then
      put(DUE, int(due), filled[n])
      moved = true
    end
  end
  if moved then wake() end
end
write()
-- Last: should anything above fail, the entries are read again.
if #work.acks > 0 then call('XACK', KEYS[2], ARGV[3], unpack(work.acks)) end
if work.rest then step_over() end
return created
