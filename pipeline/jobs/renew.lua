-- Renew the locks of active jobs, taking again those that ran out while nobody else took them (after an outage).
-- KEYS[1] stalled, KEYS[2] active; ARGV[1] key prefix, ARGV[2] lock ms, ARGV[3..] pairs of job id and token
-- Returns {tokens whose lock is lost, tokens of jobs with a deferred failure: they should stop}.
local lost, stop = {}, {}
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local job = ARGV[1] .. id
  local held = redis.call('GET', job .. ':lock')
  if held == token or (not held and redis.call('LPOS', KEYS[2], id)) then
    -- First, because a full store refuses SET unless the script has written before.
    redis.call('SREM', KEYS[1], id)
    redis.call('SET', job .. ':lock', token, 'PX', ARGV[2])
    if redis.call('HEXISTS', job, 'defa') == 1 then stop[#stop + 1] = token end
  else
    lost[#lost + 1] = token
  end
end
return {lost, stop}
