-- Which of some ended jobs have not been told of.
-- ARGV[1] the queue's prefix, ARGV[2] prefix of its marks, ARGV[3…] job ids
-- Returns their ids.
local untold = {}
for i = 3, #ARGV do
  local made = redis.call('HGET', ARGV[1] .. ARGV[i], 'atm') or ''
  if redis.call('EXISTS', ARGV[2] .. ARGV[i] .. ':' .. made) == 0 then table.insert(untold, ARGV[i]) end
end
return untold
