-- Add several plain jobs (no parent, deduplication, delay, priority or id of their own) to one queue: what addStandardJob, called for one after
-- the other, would leave. A call from Lua costs the store more than most commands do: hence one for all jobs wherever there is one.
-- keys: addStandardJob's (wait paused meta id completed delayed active events marker); jobs: {name, data, options} each, the last two as JSON
-- Returns their ids.
local function addPlain(keys, prefix, now, jobs)
  local call, events = redis.call, keys[8]
  local meta = call('HMGET', keys[3], 'paused', 'concurrency', 'opts.maxLenEvents')
  -- The first write, so that a full store, which refuses only a script's first, refuses them all.
  local before = call('INCRBY', keys[4], #jobs) - #jobs
  if not meta[3] then call('HSET', keys[3], 'opts.maxLenEvents', 10000) end
  local ids = {}
  for number, job in ipairs(jobs) do
    local id = before + number .. ''
    call('HSET', prefix .. id, 'name', job[1], 'data', job[2], 'opts', job[3], 'timestamp', now, 'delay', 0, 'priority', 0)
    ids[number] = id
  end
  call('LPUSH', keys[1], unpack(ids))
  if not meta[1] and not (meta[2] and call('LLEN', keys[7]) >= tonumber(meta[2])) then call('ZADD', keys[9], 0, '0') end
  for number, id in ipairs(ids) do
    call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', jobs[number][1])
    call('XADD', events, '*', 'event', 'waiting', 'jobId', id)
  end
  call('XTRIM', events, 'MAXLEN', '~', meta[3] or 10000)
  if meta[1] then keepPaused(keys[1], keys[2], keys[3]) end
  return ids
end
