-- addStandardJob, also to a queue that BullMQ 5 has paused.
local function add(keys, args)
  local id = addStandardJob(keys, args)
  keepPaused(keys[1], keys[2], keys[3])
  return id
end
