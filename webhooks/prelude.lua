-- What every script of this package shares: the keys (as keys.py builds them), the indexes, the end of a delivery.
--
-- A call from Lua costs the store more than most commands do. Hence what concerns many is one call: sorted sets are changed by `put` and `drop`,
-- which only remember it, and `write`, which does it, with one command a set. A number made into a string costs as much as a command: times that
-- came as strings are handed on as strings.
--
-- A delivery's hash has, beside what model.Delivery shows, `base`: how many attempts were made before the present round of its schedule
-- (a replay starts a new one), and `line`, where its endpoint wants an order (ordering.py): 16 digits of the key, 20 of its place. An empty field is as good as none. Times are ms since the epoch, passed in: scripts that read the store's clock could not be tested at a given instant.

local P = KEYS[1]
local call = redis.call
local MAX_ATTEMPTS = 50

-- Lua by itself writes large numbers with an exponent; `%.0f` takes five times as long.
local function int(number) return string.format('%d', number) end

local function key(kind, id) return P .. ':' .. kind .. ':' .. id end
local DUE = P .. ':due'
local DUE_RETRIES = P .. ':due:retries'
local EXPIRING = P .. ':expiring'
local FINISHED = P .. ':finished'
local WAKE = P .. ':wake'
-- Where an endpoint stands in the indexes while it has no slot free: behind all times, until a settlement frees one.
local FULL = 1e15

-- A full store refuses a script at its first write that needs memory, and lets it go on after one that does not.
local function go_on_when_full() call('DEL', P .. ':full') end

-- One marker is enough: whoever takes it claims, and leaves another behind if there is more than it could take.
local function wake()
  if call('LLEN', WAKE) == 0 then call('LPUSH', WAKE, '1') end
end

-- --- sorted sets ---

local added, dropped = {}, {}

local function put(set, score, member)
  local pairs_of = added[set]
  if not pairs_of then pairs_of = {}; added[set] = pairs_of end
  pairs_of[#pairs_of + 1], pairs_of[#pairs_of + 2] = score, member
end

local function drop(set, member)
  local members = dropped[set]
  if not members then members = {}; dropped[set] = members end
  members[#members + 1] = member
end

-- Lua's stack has room for about 8,000 arguments.
local function each(command, set, values)
  for from = 1, #values, 5000 do call(command, set, unpack(values, from, math.min(from + 4999, #values))) end
end

local function write()
  for set, members in pairs(dropped) do each('ZREM', set, members) end
  for set, scores in pairs(added) do each('ZADD', set, scores) end
  added, dropped = {}, {}
end

-- The one place that keeps the indexes of the records; `from` is nil for a new one. Both times are strings; nobody asks for the first of a
-- delivery that ended as delivered.
local function note(delivery, endpoint, created, from, to, now, run)
  if not from then
    put(P .. ':deliveries:all', created, delivery)
    put(key('deliveries:endpoint', endpoint), created, delivery)
    if run ~= '' then put(key('deliveries:run', run), created, delivery) end
  elseif from ~= 'delivered' then
    drop(key('deliveries:status', from), delivery)
  end
  if to ~= 'delivered' then put(key('deliveries:status', to), created, delivery) end
  if to ~= 'pending' then
    put(FINISHED, now, delivery)
  elseif from then
    drop(FINISHED, delivery)
  end
end

-- --- endpoints ---

-- The earliest that anything of an endpoint may be claimed.
local function rests_until(held, open) return math.max(tonumber(held or '') or 0, tonumber(open or '') or 0) end

-- Through a breaker that is not closed one attempt at a time finds out whether it may be.
local function slots(concurrency, open) return open and open ~= '' and 1 or tonumber(concurrency) end

-- Where an endpoint stands in both indexes, worked out anew. One that has been waiting keeps its place.
local function reindex(endpoint, now)
  local e = call('HMGET', key('endpoint', endpoint), 'status', 'concurrency', 'heldUntil', 'openUntil')
  local full = e[1] == 'enabled' and call('ZCARD', key('leases', endpoint)) >= slots(e[2], e[4])
  for index, kind in pairs({[DUE] = 'mailbox', [DUE_RETRIES] = 'retries'}) do
    local head = e[1] == 'enabled' and call('ZRANGE', key(kind, endpoint), 0, 0, 'WITHSCORES') or {}
    if not head[2] then
      call('ZREM', index, endpoint)
    else
      local at = full and FULL or math.max(tonumber(head[2]), rests_until(e[3], e[4]))
      if at <= now then
        local place = tonumber(call('ZSCORE', index, endpoint) or '')
        at = place and place <= now and place or now
      end
      call('ZADD', index, int(at), endpoint)
    end
  end
end

-- A change of an endpoint, so that every process that caches endpoints reads it again.
local function changed(endpoint)
  call('ZADD', P .. ':changes', call('INCR', P .. ':version'), endpoint)
end

-- --- deliveries ---

-- Keep a record of an attempt (JSON); returns how many there have been, as a string.
local function attempt(delivery, record)
  local number = call('RPUSH', key('attempts', delivery), record)
  if number <= MAX_ATTEMPTS then return int(number) end
  call('LTRIM', key('attempts', delivery), -MAX_ATTEMPTS, -1)
  return int(call('HINCRBY', key('delivery', delivery), 'attempts', 1))
end

-- What a mailbox has of a delivery that was never attempted and stands in no line: its event before its id, so that a claim, for which of such a
-- one that is all, need not read its record. In all other cases, and in all other sets, it is the id alone. Of those due at one time the event comes
-- first in the order of the set, so it is the same in all mailboxes, and a claim from several of them reads few bodies.
local ID_LENGTH = 28 -- of model.delivery_id

local function untried(delivery, event) return event .. delivery end

-- The delivery, and its event or ''.
local function of_member(member) return string.sub(member, -ID_LENGTH), string.sub(member, 1, -ID_LENGTH - 1) end

-- Of those with one ordering key, one is in the mailbox, the retries or the leases, and the others wait in a line, by their place in the log.

local function line_set(endpoint, line) return key('line', endpoint .. ':' .. string.sub(line, 1, 16)) end

-- Whether it is this one's turn at once.
local function enter(endpoint, delivery, line)
  local set = line_set(endpoint, line)
  call('ZADD', set, 0, string.sub(line, 17) .. delivery)
  return call('ZCARD', set) == 1
end

-- It has ended: returns whose turn it is now, and when (a string); it is in the mailbox then.
local function leave(endpoint, delivery, line)
  local set = line_set(endpoint, line)
  call('ZREM', set, string.sub(line, 17) .. delivery)
  local following = call('ZRANGE', set, 0, 0)[1]
  if not following then return end
  following = string.sub(following, 21)
  local due = call('HGET', key('delivery', following), 'due') or '0'
  put(key('mailbox', endpoint), due, following)
  return following, due
end

-- A delivery leaves wherever it waits, skipped. `now` is a string.
local function skip(delivery, endpoint, from, reason, now)
  for _, kind in ipairs({'mailbox', 'retries', 'leases'}) do drop(key(kind, endpoint), delivery) end
  local d = call('HMGET', key('delivery', delivery), 'created', 'line', 'event')
  if not d[1] then return end
  drop(key('mailbox', endpoint), untried(delivery, d[3]))
  call('HSET', key('delivery', delivery), 'status', 'skipped', 'reason', reason, 'finished', now)
  note(delivery, endpoint, d[1], from, 'skipped', now)
  if d[2] then leave(endpoint, delivery, d[2]) end
end
