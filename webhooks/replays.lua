-- Replays of many deliveries: begin, step, cancel and forget them.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 operation, 3…:
--   create  3 replay, 4 endpoint, 5 what is asked for (JSON), 6 first position; returns the replay that runs for this endpoint, which may be another
--   step    3 replay, 4 in MessagePack: {from, to: positions, paid, records: [delivery…], events: [{id, type, run, body, delivery, line or nil}…]}
--           returns whether it was done: not, if the replay has moved or ended meanwhile, or its endpoint cannot be served
--   cancel  3 replay, 4 reason
--   forget  3 those that began up to then (ms), 4 limit; returns how many

local now, operation = tonumber(ARGV[1]), ARGV[2]
local RUNNING, ALL = P .. ':replays:running', P .. ':replays'

local function finish(replay, endpoint, status, reason)
  call('HSET', key('replay', replay), 'status', status, 'reason', reason, 'finished', ARGV[1])
  if call('HGET', RUNNING, endpoint) == replay then call('HDEL', RUNNING, endpoint) end
end

if operation == 'create' then
  local replay, endpoint = ARGV[3], ARGV[4]
  local running = call('HGET', RUNNING, endpoint)
  if running then return running end
  call('HSET', key('replay', replay), 'endpoint', endpoint, 'asked', ARGV[5], 'position', ARGV[6], 'status', 'running', 'reason', '',
    'matched', 0, 'replayed', 0, 'skipped', 0, 'paid', 0, 'started', ARGV[1], 'finished', '')
  call('ZADD', ALL, ARGV[1], replay)
  call('HSET', RUNNING, endpoint, replay)
  return replay
end

if operation == 'cancel' then
  local r = call('HMGET', key('replay', ARGV[3]), 'status', 'endpoint')
  if r[1] == 'running' then finish(ARGV[3], r[2], 'cancelled', ARGV[4]) end
  return
end

if operation == 'forget' then
  local old = call('ZRANGEBYSCORE', ALL, '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
  local forgotten = 0
  for _, replay in ipairs(old) do
    if call('HGET', key('replay', replay), 'status') ~= 'running' then
      call('DEL', key('replay', replay))
      call('ZREM', ALL, replay)
      forgotten = forgotten + 1
    end
  end
  return forgotten
end

-- A delivery that ended is pending again, with a new round of its schedule.
local function revive(delivery, endpoint, status, attempts, created, line, replay)
  call('HSET', key('delivery', delivery), 'status', 'pending', 'reason', '', 'finished', '', 'base', attempts or '0', 'due', ARGV[1], 'replayed', replay)
  note(delivery, endpoint, created, status, 'pending', ARGV[1])
  if not line or enter(endpoint, delivery, line) then put(key('retries', endpoint), ARGV[1], delivery) end
end

-- step
local replay, what = ARGV[3], cmsgpack.unpack(ARGV[4])
local r = call('HMGET', key('replay', replay), 'status', 'position', 'endpoint', 'matched', 'replayed', 'skipped')
-- Another process was here first, or this is sent again after a lost reply.
if r[1] ~= 'running' or r[2] ~= what.from then return 0 end
local endpoint = r[3]
local status = call('HGET', key('endpoint', endpoint), 'status')
if not status or status == 'disabled' then return 0 end

local replayed = 0
for _, delivery in ipairs(what.records) do
  local d = call('HMGET', key('delivery', delivery), 'status', 'attempts', 'created', 'line')
  if d[1] and d[1] ~= 'pending' then
    revive(delivery, endpoint, d[1], d[2], d[3], d[4], replay)
    replayed = replayed + 1
  end
end
for _, event in ipairs(what.events) do
  local record = key('delivery', event.delivery)
  if call('EXISTS', record) == 0 then
    call('HSET', record, 'event', event.id, 'endpoint', endpoint, 'type', event.type, 'run', event.run, 'created', ARGV[1],
      'status', 'pending', 'due', ARGV[1], 'replayed', replay)
    note(event.delivery, endpoint, ARGV[1], nil, 'pending', ARGV[1], event.run)
    if event.line then call('HSET', record, 'line', event.line) end
    if not event.line or enter(endpoint, event.delivery, event.line) then put(key('retries', endpoint), ARGV[1], event.delivery) end
    call('SET', key('body', event.id), event.body)
    call('INCRBY', key('refs', event.id), 1)
    replayed = replayed + 1
  end
end
write()
local matched = #what.records + #what.events
call('HSET', key('replay', replay), 'position', what.to, 'paid', what.paid, 'matched', int(r[4] + matched),
  'replayed', int(r[5] + replayed), 'skipped', int(r[6] + matched - replayed))
if what.to == 'end' then finish(replay, endpoint, 'done', '') end
if replayed > 0 then
  reindex(endpoint, now)
  wake()
end
return 1
