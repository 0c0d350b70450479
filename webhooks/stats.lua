-- Stats: add what a process has counted to each endpoint's totals and to the slots of time that it lies in.
--
-- KEYS 1 prefix
-- ARGV 1 now, 2 token of this addition, 3 how many endpoints are shown each by itself, 4 in MessagePack:
--   [[endpoint, delivered, failed, exhausted, ms, last success, last failure, [bucket, count…]]…]
-- An endpoint's hash has the totals as fields, and in `m<n>` and `h<n>` a slot of five minutes and of an hour:
-- JSON of [number of the slot, delivered, failed, exhausted, [bucket, count…]].

local now = tonumber(ARGV[1])
-- Sent again after a lost reply: it was added.
if not call('SET', key('stats:added', ARGV[2]), '1', 'NX', 'EX', 60) then return end
local SHOWN = P .. ':shown'
local IDLE = 3600000
local SLOTS = {{name = 'm', ms = 300000, of = 13}, {name = 'h', ms = 3600000, of = 25}}

local function sum(into, buckets)
  local counts = {}
  for n = 1, #into, 2 do counts[into[n]] = into[n + 1] end
  for n = 1, #buckets, 2 do counts[buckets[n]] = (counts[buckets[n]] or 0) + buckets[n + 1] end
  local flat = {}
  for bucket, count in pairs(counts) do
    flat[#flat + 1] = bucket
    flat[#flat + 1] = count
  end
  return flat
end

local function later(text, at) return int(math.max(tonumber(text or '') or 0, at)) end

local function add(id, one)
  local record, fields = key('stats', id), {}
  for n, slot in ipairs(SLOTS) do
    local number = math.floor(now / slot.ms)
    slot.number, fields[n] = number, slot.name .. number % slot.of
  end
  local have = call('HMGET', record, 'delivered', 'failed', 'exhausted', 'ms', 'lastSuccess', 'lastFailure', 'buckets', unpack(fields))
  local set = {'lastSuccess', later(have[5], one[6]), 'lastFailure', later(have[6], one[7])}
  for n, name in ipairs({'delivered', 'failed', 'exhausted', 'ms'}) do
    set[#set + 1] = name
    set[#set + 1] = int(tonumber(have[n] or '0') + one[n + 1])
  end
  set[#set + 1] = 'buckets'
  set[#set + 1] = cjson.encode(sum(have[7] and cjson.decode(have[7]) or {}, one[8]))
  for n, slot in ipairs(SLOTS) do
    local kept = have[7 + n] and cjson.decode(have[7 + n])
    if not kept or kept[1] ~= slot.number then kept = {slot.number, 0, 0, 0, {}} end
    set[#set + 1] = fields[n]
    set[#set + 1] = cjson.encode({slot.number, kept[2] + one[2], kept[3] + one[3], kept[4] + one[4], sum(kept[5], one[8])})
  end
  call('HSET', record, unpack(set))
end

call('ZREMRANGEBYSCORE', SHOWN, '-inf', now - IDLE)
local room = tonumber(ARGV[3]) - call('ZCARD', SHOWN)
for _, one in ipairs(cmsgpack.unpack(ARGV[4])) do
  local endpoint = one[1]
  if endpoint == '(all)' then
    add(endpoint, one)
  elseif call('EXISTS', key('endpoint', endpoint)) == 1 then
    add(endpoint, one)
    -- Who has a place keeps it while it is active: what is counted as another's is never counted again as its own.
    local placed = call('ZSCORE', SHOWN, endpoint)
    if placed or room > 0 then
      if not placed then room = room - 1 end
      call('ZADD', SHOWN, int(now), endpoint)
    else
      add('(other)', one)
    end
  end
end
