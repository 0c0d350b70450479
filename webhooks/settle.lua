-- Settle: record a batch of outcomes. A stale lease records its attempt, but only a success of it changes the delivery.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 ms without a success that disable an endpoint (0: never), 3 '1' if who settles claims next, else '',
--   4 in MessagePack, for each endpoint {id, delivered, others}:
--   delivered  [id, lease, HTTP status, attempt (JSON text), line or nil]…
--   others     {id, lease, line, verdict: delivered|retry|exhausted|released, after, retry, version, began, receiver, refusal, off, hold, due, reason, code,
--              attempt (JSON text), about (JSON text), own}…
--     after     how many of `delivered` came before it
--     retry     1 if what is released was a retry
--     event     of what is released and was never attempted
--     version   of the endpoint that was dialled, and `began` when (ms)
--     receiver  failed|answered: what the attempt says about it, absent for nothing
--     refusal   true if it is too busy and did not say for how long
--     off       gone|asked: it wants nothing any more
--     hold      ms since the epoch until which it wants nothing
--     reason    why it is exhausted, where that is not the schedule's end
--     about     what an event about this says; absent if there shall be none
--     own       true if it was the delivery of such an event
-- Returns for each endpoint what became of its items, in this order: ok, stale, repeated or missing; and last 1 if something can be claimed earlier now.

local now, now_text, disable_after = tonumber(ARGV[1]), ARGV[1], tonumber(ARGV[2])

local function endpoint_of(id)
  local e = read_endpoint(id)
  e.mailbox, e.retries, e.leases, e.was_open = key('mailbox', id), key('retries', id), key('leases', id), e.open > 0
  -- When the earliest is due of what this puts into them; FULL for nothing.
  e.due = {mailbox = FULL, retries = FULL}
  return e
end

local function wait(e, kind, delivery, due)
  put(e[kind], int(due), delivery)
  e.due[kind] = math.min(e.due[kind], due)
end

-- --- deliveries ---

-- What is settled by the lease that it still has: it is pending, and nobody else has it.

-- The next one of its line has its turn.
local function advance(e, delivery, line)
  if not line then return end
  local following, due = leave(e.id, delivery, line)
  if following then e.due.mailbox = math.min(e.due.mailbox, tonumber(due)) end
end

local function settle_delivered(e, id, code, text, line)
  drop(e.leases, id)
  call('HSET', key('delivery', id), 'status', 'delivered', 'attempts', attempt(id, text), 'code', code, 'finished', now_text)
  note(id, e.id, nil, 'pending', 'delivered', now_text)
  succeeded(e, now)
  advance(e, id, line)
end

local function settle_other(e, item)
  local record = key('delivery', item.id)
  drop(e.leases, item.id)
  if item.verdict == 'released' then
    call('HSET', record, 'due', now_text)
    wait(e, item.retry == 1 and 'retries' or 'mailbox', item.event and untried(item.id, item.event) or item.id, now)
    return
  end
  if item.verdict == 'delivered' then
    settle_delivered(e, item.id, item.code, item.attempt, item.line)
    judge(e, item, now, disable_after)
    return
  end
  local number = attempt(item.id, item.attempt)
  judge(e, item, now, disable_after)
  if not e.status then
    call('HSET', record, 'attempts', number, 'code', item.code)
    skip(item.id, e.id, 'pending', 'endpoint-deleted', now_text)
  elseif item.verdict == 'retry' then
    call('HSET', record, 'attempts', number, 'code', item.code, 'due', int(item.due))
    wait(e, 'retries', item.id, item.due)
  else
    call('HSET', record, 'status', 'exhausted', 'attempts', number, 'code', item.code, 'finished', now_text, 'reason', item.reason or '')
    note(item.id, e.id, call('HGET', record, 'created'), 'pending', 'exhausted', now_text)
    if item.about then tell(e, 'delivery.exhausted', item, '') end
    -- Skipped and recorded: the rest goes on.
    advance(e, item.id, item.line)
  end
end

-- What was taken back meanwhile, or is settled a second time.
local function settle_late(e, item)
  write()
  local record = key('delivery', item.id)
  local status = call('HGET', record, 'status')
  if not status then return 'missing' end
  if item.verdict == 'released' then return 'stale' end
  -- The reply to its first settlement was lost: no two attempts of a delivery begin and end alike.
  if call('LPOS', key('attempts', item.id), item.attempt) then return 'repeated' end
  call('HSET', record, 'attempts', attempt(item.id, item.attempt), 'code', item.code)
  if item.verdict == 'delivered' then succeeded(e, now) end
  judge(e, item, now, disable_after)
  if item.verdict == 'delivered' and status ~= 'delivered' then
    for _, set in ipairs({e.mailbox, e.retries, e.leases}) do drop(set, item.id) end
    call('HSET', record, 'status', 'delivered', 'reason', '', 'finished', now_text)
    note(item.id, e.id, nil, status, 'delivered', now_text)
    if status == 'pending' then advance(e, item.id, item.line) end
    write()
  end
  return 'stale'
end

local function settle(e, delivered, others)
  local ids, results, done = {}, {}, {}
  for n, item in ipairs(delivered) do ids[n] = item[1] end
  for n, item in ipairs(others) do ids[#delivered + n] = item.id end
  local leases = call('ZMSCORE', e.leases, unpack(ids))
  -- A second settlement of a delivery in one batch finds what the first left.
  local function held(n, lease)
    local mine = not done[ids[n]] and leases[n] and tonumber(leases[n]) == tonumber(lease)
    done[ids[n]] = true
    return mine
  end
  local passed = 0
  local function deliver_until(count)
    for n = passed + 1, count do
      local item = delivered[n]
      if held(n, item[2]) then
        settle_delivered(e, item[1], item[3], item[4], item[5])
        results[n] = 'ok'
      else
        results[n] = settle_late(e, {id = item[1], verdict = 'delivered', code = item[3], attempt = item[4], line = item[5]})
      end
    end
    passed = count
  end
  -- As they came: failures with a success among them are not in a row.
  for n, item in ipairs(others) do
    deliver_until(item.after)
    n = #delivered + n
    if held(n, item.lease) then
      settle_other(e, item)
      results[n] = 'ok'
    else
      results[n] = settle_late(e, item)
    end
  end
  deliver_until(#delivered)
  write_endpoint(e)
  return results
end

-- An endpoint that was full has a slot now, and one whose breaker closed may be tried at once; what was put back has its time.
local function stand(endpoints, ids, index, kind)
  local moved = false
  for n, place in ipairs(call('ZMSCORE', index, unpack(ids))) do
    local e = endpoints[n]
    place = tonumber(place or '')
    local at = (place == FULL or (place and e.was_open and e.open == 0)) and now or e.due[kind]
    if e.status == 'enabled' and at < FULL and (not place or at < place) then
      put(index, int(at), e.id)
      moved = true
    end
  end
  return moved
end

-- What was sent must be recorded.
go_on_when_full()
local endpoints, ids, results = {}, {}, {}
for n, group in ipairs(cmsgpack.unpack(ARGV[4])) do
  endpoints[n], ids[n] = endpoint_of(group[1]), group[1]
  results[n] = settle(endpoints[n], group[2], group[3])
end
local fresh, retries = stand(endpoints, ids, DUE, 'mailbox'), stand(endpoints, ids, DUE_RETRIES, 'retries')
write()
-- Who claims next needs no marker, and its claim leaves one if there is more than it could take. Should it die before, others look by themselves.
if (fresh or retries) and ARGV[3] == '' then wake() end
results[#results + 1] = (fresh or retries) and 1 or 0
return results
