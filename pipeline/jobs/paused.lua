-- BullMQ 5 moves the waiting jobs of a queue that it pauses to `paused`, and its resume renames that over `wait`: what others, for whom a pause
-- is only a flag, have put into `wait` meanwhile would be in no list any more. So it is moved beside the rest, oldest first.
local function keepPaused(wait, paused, meta)
  if redis.call('HEXISTS', meta, 'paused') == 0 then return end
  local five = redis.call('EXISTS', paused) == 1 or string.find(redis.call('HGET', meta, 'version') or '', '^bullmq:5%.')
  if not five then return end
  for _ = 1, 1000 do
    if not redis.call('RPOPLPUSH', wait, paused) then return end
  end
end
