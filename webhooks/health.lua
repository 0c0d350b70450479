-- An endpoint's health: what each outcome does to it. Decided here and not in Python, because it has to be atomic with the outcome.
--
-- Its hash has of it:
--   heldUntil    ms; nothing is sent before
--   openUntil    ms; empty while its breaker is closed. Nothing is sent before, and from then on one attempt at a time, the probe
--   lastSuccess  ms, to the second
--   health       JSON, empty while all is well: {failures, refusals, openings: how many in a row; failingSince, warned: ms}
--
-- An attempt that began before the present hold or opening says nothing new about it: those under way together end together.

local RULES = {
  failures = 10,            -- in a row open the breaker
  open_ms = 5000,           -- at first, for a receiver that is only restarted; each probe that fails doubles it
  open_longest_ms = 600000,
  hold_ms = 1000,           -- for the first answer that says `too busy` without saying until when; the next one after that hold doubles it
  hold_longest_ms = 60000,
  success_ms = 1000,        -- how exactly the last success is noted
}

local function read_endpoint(id)
  local e = call('HMGET', key('endpoint', id), 'status', 'v', 'heldUntil', 'openUntil', 'lastSuccess', 'health')
  return {
    id = id, record = key('endpoint', id), status = e[1], version = tonumber(e[2] or ''),
    held = tonumber(e[3] or '') or 0, open = tonumber(e[4] or '') or 0, succeeded = tonumber(e[5] or '') or 0,
    ill = e[6] and e[6] ~= '' and cjson.decode(e[6]) or nil, changed = false,
  }
end

local function write_endpoint(e)
  -- What succeeds after its endpoint was deleted must not bring it back.
  if not e.changed or not e.status then return end
  call('HSET', e.record, 'heldUntil', e.held > 0 and int(e.held) or '', 'openUntil', e.open > 0 and int(e.open) or '',
    'lastSuccess', e.succeeded > 0 and int(e.succeeded) or '', 'health', e.ill and cjson.encode(e.ill) or '')
end

local function doubled(first, times, longest) return math.min(first * 2 ^ (times - 1), longest) end

-- An event of this package about the endpoint: `item.about` (a JSON object) and what is known only here. Deliveries of such events cause no
-- further ones, lest they go round for ever, but this: that an endpoint is disabled. It is left out of it, and gets nothing more.
local function tell(e, type, item, more)
  if item.own and type ~= 'endpoint.disabled' then return end
  local identity = cjson.encode({e.id, item.id, int(item.began)})
  call('RPUSH', P .. ':outbox', '{"type":"' .. type .. '","data":' .. string.sub(item.about, 1, -2) .. more .. '},"identity":' .. identity .. '}')
end

local function disable(e, item, now, reason, text)
  e.status, e.version = 'disabled', e.version + 1
  call('HSET', e.record, 'status', 'disabled', 'reason', text, 'v', int(e.version), 'since', int(now))
  changed(e.id)
  local since = e.ill and e.ill.failingSince
  if item.about then tell(e, 'endpoint.disabled', item, ',"reason":"' .. reason .. '","failingSince":' .. (since and int(since) or 'null')) end
end

local function open(e, now, openings)
  e.ill.openings = openings
  e.open = now + doubled(RULES.open_ms, openings, RULES.open_longest_ms)
end

local function failed(e, item, now)
  e.ill.failures = e.ill.failures + 1
  if item.refusal and item.began >= e.held then
    e.ill.refusals = e.ill.refusals + 1
    e.held = now + doubled(RULES.hold_ms, e.ill.refusals, RULES.hold_longest_ms)
  end
  if e.open == 0 then
    if e.ill.failures >= RULES.failures then open(e, now, 1) end
  elseif item.began >= e.open then
    open(e, now, e.ill.openings + 1)
  end
end

-- Whatever it said, it answers: nothing is gained by leaving it alone.
local function answered(e)
  e.ill.failures, e.ill.refusals, e.ill.openings, e.open = 0, 0, 0, 0
end

-- The warning comes at half the time, and as much again has to pass after it. An event about endpoints or deliveries causes neither.
local function judge_time(e, item, now, disable_after)
  if disable_after <= 0 or not item.about or item.own then return end
  if e.ill.warned and now - e.ill.warned >= disable_after / 2 then
    disable(e, item, now, 'failing', 'no delivery succeeded for too long')
  elseif not e.ill.warned and now - e.ill.failingSince >= disable_after / 2 then
    e.ill.warned = now
    tell(e, 'endpoint.failing', item, ',"failingSince":' .. int(e.ill.failingSince) .. ',"disabledAt":' .. int(now + disable_after / 2))
  end
end

local function succeeded(e, now)
  if e.ill or e.open > 0 or now - e.succeeded >= RULES.success_ms then
    e.ill, e.open, e.succeeded, e.changed = nil, 0, now, true
  end
end

-- What follows from an attempt that failed. Where the endpoint has been changed since, only that the receiver wants quiet: the rest is about what was.
local function judge(e, item, now, disable_after)
  if not e.status then return end
  if item.hold and item.hold > e.held then e.held, e.changed = item.hold, true end
  if e.version ~= item.version then return end
  if item.receiver then
    e.changed = true
    e.ill = e.ill or {failures = 0, refusals = 0, openings = 0, failingSince = item.began}
    if item.receiver == 'failed' then failed(e, item, now) else answered(e) end
  end
  if item.off == 'gone' then
    disable(e, item, now, 'gone', 'the receiver answered 410 Gone')
  elseif item.off == 'asked' then
    disable(e, item, now, 'asked', 'the receiver answered with webhook-delivery: disable')
  elseif item.receiver and e.status == 'enabled' then
    judge_time(e, item, now, disable_after)
  end
end
