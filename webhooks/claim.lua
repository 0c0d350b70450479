-- Claim: what each endpoint's concurrency and rate allow of what is due, under a lease; leases that ran out are taken back first.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 limit, 3 how many of these may be retries, 4 token of this claim: 16 hexadecimal digits, 5 dispatcher (presence.lua), or ''
-- Returns {version of the endpoints, when something can next be claimed or '',
--   [[endpoint, lease, 1 for retries, [delivery, event, attempts, base, line]…]…], [event, body…]}; of one never attempted [delivery, event]
--
-- A lease is the time at which it runs out. It is shorter than the endpoint's by up to a second, as the token says, to the µs: no two claims have the
-- same one, so it also is what allows to settle it.

local now, limit, retries_left, token = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local MAX_VISITS = 1000
local AT_ONCE = 50
local LEASE_JITTER = 1024 -- ms
-- How much of a rate may begin at once.
local BURST_MS = 100
-- Of the deliveries of an endpoint, or of a claim, for which fresh ones and retries compete, one in so many is a retry.
local SHARE = 5
local LOST = '{"at":' .. ARGV[1] .. ',"duration":null,"status":null,"error":"the sending process died; the request may have arrived","response":null,"address":null}'

local jitter, fraction = 1 + tonumber(string.sub(token, 1, 3), 16) % LEASE_JITTER, string.format('.%03d', tonumber(string.sub(token, 7, 10), 16) % 1000)
local rounds, taken, visits, watched = {}, 0, 0, {}

-- --- what was lost ---

local function reclaim(endpoint)
  local leases = key('leases', endpoint)
  for _, delivery in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do
    drop(leases, delivery)
    local record = key('delivery', delivery)
    local d = call('HMGET', record, 'status', 'attempts', 'base')
    if d[1] == 'pending' then
      local tried = tonumber(d[2] or '0') - tonumber(d[3] or '0')
      -- Our process failed, not the receiver: it does not count against the schedule.
      call('HSET', record, 'due', ARGV[1], 'attempts', attempt(delivery, LOST), 'base', tonumber(d[3] or '0') + 1)
      put(key(tried > 0 and 'retries' or 'mailbox', endpoint), ARGV[1], delivery)
    end
  end
  write()
  local first = call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  if first[2] then call('ZADD', EXPIRING, first[2], endpoint) else call('ZREM', EXPIRING, endpoint) end
  reindex(endpoint, now)
end

-- --- what is due ---

-- The first deliveries of a set with their scores, one more than wanted; and how many of those wanted are due.
local function heads(kind, endpoint, wanted)
  local found = call('ZRANGE', key(kind, endpoint), 0, wanted, 'WITHSCORES')
  local due = 0
  while due < wanted and found[2 * due + 2] and tonumber(found[2 * due + 2]) <= now do due = due + 1 end
  return found, due
end

local function open_round(endpoint, lease, kind)
  rounds[#rounds + 1] = {endpoint, lease, kind == 'retries' and 1 or 0}
  return rounds[#rounds]
end

-- Returns the delivery of a member, if it exists.
local function add(round, member)
  local delivery, event = of_member(member)
  if event ~= '' then
    round[#round + 1] = {delivery, event}
  else
    local d = call('HMGET', key('delivery', delivery), 'event', 'attempts', 'base', 'line')
    if not d[1] then return nil end
    round[#round + 1] = {delivery, d[1], d[2] or '0', d[3] or '0', d[4] or ''}
  end
  taken = taken + 1
  return delivery
end

local function take(kind, endpoint, found, count, lease)
  if count == 0 then return end
  local round, set, leases = open_round(endpoint, lease, kind), key(kind, endpoint), key('leases', endpoint)
  for n = 1, count do
    local delivery = add(round, found[2 * n - 1])
    if delivery then put(leases, lease, delivery) end
  end
  -- Those first of it: by rank the store does not have to look for each.
  call('ZREMRANGEBYRANK', set, 0, count - 1)
end

-- Where the endpoint stands after so many of the heads were taken: behind those that wait, and not before `earliest`.
local function stand(index, endpoint, found, count, full, earliest)
  local following = found[2 * count + 2]
  if not following then
    drop(index, endpoint)
  else
    put(index, int(full and FULL or math.max(tonumber(following), earliest)), endpoint)
  end
end

-- A rate (`count/ms`, empty for none) as GCRA has it: `tat` is when what was taken so far would be through at an even pace, and how far it may be
-- ahead of now is the burst. So in no stretch of time more begin than the rate allows in it, and one burst.
local function pace_of(rate, tat)
  local count, ms = string.match(rate or '', '^(%d+)/(%d+)$')
  if not count then return nil end
  local interval = ms / count
  local burst = math.max(1, math.floor(BURST_MS / interval))
  local pace = {interval = interval, tat = math.max(tonumber(tat or '') or 0, now), ahead = burst * interval}
  -- Rounding must not cost one.
  pace.left = math.floor((now + pace.ahead - pace.tat) / interval + 1e-6)
  return pace
end

-- When one more may begin.
local function earliest_of(pace) return math.ceil(pace.tat + pace.interval - pace.ahead - 1e-6) end

local function spend(endpoint, pace, count)
  pace.tat, pace.left = pace.tat + count * pace.interval, pace.left - count
  call('HSET', key('endpoint', endpoint), 'tat', string.format('%.4f', pace.tat))
end

-- How many of `room` go to fresh ones and to retries, when so many of each are due.
local function divide(endpoint, room, fresh, retries, turn)
  if fresh + retries <= room then return fresh, retries end
  if retries == 0 then return room, 0 end
  -- Over several small claims the ratio holds, too.
  local passed = turn + room
  local share = math.min(retries, math.max(math.floor(passed / SHARE), room - fresh))
  call('HSET', key('endpoint', endpoint), 'turn', passed % SHARE)
  return room - share, share
end

-- Take up to `most`; `fresh` and `retries` say of which something may be due.
local function visit(endpoint, most, fresh, retries)
  visits = visits + 1
  local e = call('HMGET', key('endpoint', endpoint), 'status', 'concurrency', 'lease', 'heldUntil', 'openUntil', 'turn', 'rate', 'tat')
  if e[1] ~= 'enabled' then
    drop(DUE, endpoint)
    drop(DUE_RETRIES, endpoint)
    return
  end
  local leased = call('ZCARD', key('leases', endpoint))
  local free = slots(e[2], e[5]) - leased
  local rest = rests_until(e[4], e[5])
  local pace = pace_of(e[7], e[8])
  if pace and pace.left < 1 then rest = math.max(rest, earliest_of(pace)) end
  local before = taken
  if rest > now or free <= 0 then
    local at = int(rest > now and rest or FULL)
    if fresh then put(DUE, at, endpoint) end
    if retries then put(DUE_RETRIES, at, endpoint) end
  else
    local room = math.min(free, most, pace and pace.left or free)
    local mailbox, in_mailbox, again, in_again = {}, 0, {}, 0
    if fresh then mailbox, in_mailbox = heads('mailbox', endpoint, room) end
    if retries then again, in_again = heads('retries', endpoint, math.min(room, retries_left)) end
    -- A probe is a fresh one where there is one: a retry may fail for what it is.
    if e[5] and e[5] ~= '' and in_mailbox > 0 then in_again = 0 end
    local from_mailbox, from_retries = divide(endpoint, room, in_mailbox, in_again, tonumber(e[6] or '0'))
    local lease = int(now + tonumber(e[3]) - jitter) .. fraction
    take('mailbox', endpoint, mailbox, from_mailbox, lease)
    take('retries', endpoint, again, from_retries, lease)
    retries_left = retries_left - from_retries
    if pace and taken > before then spend(endpoint, pace, taken - before) end
    local full = taken - before >= free
    -- One that could have more is looked at again while this claim lasts.
    local earliest = taken - before >= most and taken < limit and now or now + 1
    if pace and pace.left < 1 then earliest = math.max(now + 1, earliest_of(pace)) end
    if fresh then stand(DUE, endpoint, mailbox, from_mailbox, full, earliest) end
    if retries then stand(DUE_RETRIES, endpoint, again, from_retries, full, earliest) end
  end
  if leased > 0 or taken > before then watched[#watched + 1], watched[#watched + 2] = int(now + tonumber(e[3])), endpoint end
end

-- Visit the endpoints of one index that are due, until `most` deliveries are taken; with `alone`, once, leaving out those of which the other index
-- has something, too.
local function serve(index, other, most, alone)
  -- Ten by ten attempts are a claim; where endpoints take fewer, more are asked for.
  local count = 10
  repeat
    local endpoints = taken < most and call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, count) or {}
    count = math.min(2 * count, AT_ONCE)
    if #endpoints == 0 then return end
    local places = call('ZMSCORE', other, unpack(endpoints))
    for n, endpoint in ipairs(endpoints) do
      if taken >= most or (index == DUE_RETRIES and retries_left <= 0) then break end
      local too = (tonumber(places[n] or '') or FULL) <= now
      -- An even share each; what others leave, those who have more get in another round.
      local share = math.ceil((most - taken) / (#endpoints - n + 1))
      if index == DUE then
        visit(endpoint, share, true, too and retries_left > 0)
      elseif not (alone and too) then
        visit(endpoint, share, too, true)
      end
    end
    write()
  until alone or visits >= MAX_VISITS or (index == DUE_RETRIES and retries_left <= 0)
end

local function first_of(index)
  local head = call('ZRANGE', index, 0, 0, 'WITHSCORES')
  return tonumber(head[2] or '') or FULL
end

-- What is delivered can end, and be removed one day.
go_on_when_full()
-- What this very claim took before its reply was lost.
local mine = key('claim', token)
local before = call('GET', mine)
if before then
  for _, round in ipairs(cmsgpack.unpack(before)) do
    local again = open_round(unpack(round))
    for _, delivery in ipairs(call('ZRANGEBYSCORE', key('leases', round[1]), round[2], round[2])) do add(again, delivery) end
  end
else
  for _, endpoint in ipairs(call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, AT_ONCE)) do reclaim(endpoint) end
  -- Rounded at random, so that also a claim of one is a retry's at times.
  local share = math.min(retries_left, math.floor(limit / SHARE + tonumber(string.sub(token, 4, 6), 16) / 4096))
  if share > 0 then serve(DUE_RETRIES, DUE, share, true) end
  serve(DUE, DUE_RETRIES, limit)
  if retries_left > 0 then serve(DUE_RETRIES, DUE, limit) end
  -- An earlier time than the first lease's costs a look in vain; a later one would leave what was lost lying.
  if #watched > 0 then call('ZADD', EXPIRING, 'LT', unpack(watched)) end
  if taken > 0 then
    local brief = {}
    for n, round in ipairs(rounds) do brief[n] = {round[1], round[2], round[3] == 1 and 'retries' or 'mailbox'} end
    call('SET', mine, cmsgpack.pack(brief), 'PX', '60000')
    if ARGV[5] ~= '' then
      call('ZADD', key('held', ARGV[5]), ARGV[1], token)
      call('ZREMRANGEBYSCORE', key('held', ARGV[5]), '-inf', int(now - 60000))
    end
  end
end

local head = first_of(DUE)
if retries_left > 0 then head = math.min(head, first_of(DUE_RETRIES)) end
-- This claimer may have no room for more, but another one may.
if taken > 0 and head <= now + 1 then wake() end
head = math.min(head, first_of(EXPIRING))

local events, keys, seen = {}, {}, {}
for _, round in ipairs(rounds) do
  for n = 4, #round do
    local event = round[n][2]
    if not seen[event] then
      seen[event] = true
      events[#events + 1], keys[#keys + 1] = event, key('body', event)
    end
  end
end
local bodies = {}
if #keys > 0 then
  for n, body in ipairs(call('MGET', unpack(keys))) do
    -- A hash is what events were before.
    bodies[2 * n - 1], bodies[2 * n] = events[n], body or call('HGET', key('event', events[n]), 'body') or ''
  end
end
return {call('GET', P .. ':version') or '0', head < FULL and int(head) or '', rounds, bodies}
