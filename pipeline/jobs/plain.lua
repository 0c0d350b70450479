-- addAll(jobs): adds jobs as addStandardJob would one after the other, each {prefix of its queue's keys, id, name, data, options as JSON, ms}, and
-- returns by their numbers why some could not be added. They have ids of their own, no two alike, or '' for the queue's next number, and no parent,
-- deduplication, delay or priority.
-- A call from Lua costs the store more than most commands do: hence one for all jobs of a queue wherever there is one.

local function addAlone(base, job)
  local keys = {}
  for at, part in ipairs({'wait', 'paused', 'meta', 'id', 'completed', 'delayed', 'active', 'events', 'marker'}) do keys[at] = base .. part end
  local id = add(keys, {cmsgpack.pack({base, job[2], job[3], tonumber(job[6])}), job[4], cmsgpack.pack(cjson.decode(job[5]))})
  if type(id) == 'number' and id < 0 then error('HOOKLINE cannot add a job: ' .. id) end
  return id
end

-- To one queue; returns their ids.
local function addTogether(base, jobs)
  local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
  local ids, own, events = {}, {}, base .. 'events'
  for at, job in ipairs(jobs) do
    ids[at] = job[2]
    if job[2] ~= '' then own[#own + 1] = base .. job[2] end
  end
  -- A queue that is paused or limited, an id that is there already: rare, and BullMQ's own business.
  if meta[1] or meta[2] or (#own > 0 and redis.call('EXISTS', unpack(own)) > 0) then
    for at, job in ipairs(jobs) do ids[at] = addAlone(base, job) end
    return ids
  end
  if not meta[3] then redis.call('HSET', base .. 'meta', 'opts.maxLenEvents', 10000) end
  local before = redis.call('INCRBY', base .. 'id', #jobs) - #jobs
  for at, job in ipairs(jobs) do
    if ids[at] == '' then ids[at] = before + at .. '' end
    redis.call('HSET', base .. ids[at], 'name', job[3], 'data', job[4], 'opts', job[5], 'timestamp', job[6], 'delay', 0, 'priority', 0)
    redis.call('XADD', events, '*', 'event', 'added', 'jobId', ids[at], 'name', job[3])
    redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', ids[at])
  end
  redis.call('XTRIM', events, 'MAXLEN', '~', meta[3] or 10000)
  redis.call('LPUSH', base .. 'wait', unpack(ids))
  redis.call('ZADD', base .. 'marker', 0, '0')
  return ids
end

local function addAll(jobs)
  local queues, order, reasons = {}, {}, {}
  for number, job in ipairs(jobs) do
    local queue = queues[job[1]]
    if not queue then
      queue = {base = job[1], jobs = {}, numbers = {}}
      queues[job[1]], order[#order + 1] = queue, queue
    end
    queue.jobs[#queue.jobs + 1], queue.numbers[#queue.numbers + 1] = job, number
  end
  for _, queue in ipairs(order) do
    local ok, reason = pcall(addTogether, queue.base, queue.jobs)
    if not ok then
      for _, number in ipairs(queue.numbers) do reasons[number] = reason end
    end
  end
  return reasons
end
