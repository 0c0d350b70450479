-- Page: what stands next in one or more indexes of deliveries, ordered by (creation, id), beyond a position.
--
-- KEYS 1 prefix
-- ARGV 1 in MessagePack: {indexes: [key…], newest: whether downwards, since, until: creation as text or absent, after: [creation, id] or absent, count}
-- Returns [id, creation…], up to `count` of each index; all read at one instant, so that what moves between them is not missed.

local asked = cmsgpack.unpack(ARGV[1])

-- How many stand before a position, or up to it. Those of one creation are in the order of their ids.
local function rank(index, at, inclusive)
  local low = call('ZCOUNT', index, '-inf', '(' .. at[1])
  local high = low + call('ZCOUNT', index, at[1], at[1])
  while low < high do
    local middle = math.floor((low + high) / 2)
    local member = call('ZRANGE', index, middle, middle)[1]
    if member < at[2] or (inclusive and member == at[2]) then low = middle + 1 else high = middle end
  end
  return low
end

local found = {}
for _, index in ipairs(asked.indexes) do
  local first = asked.since and call('ZCOUNT', index, '-inf', '(' .. asked.since) or 0
  local stop = call('ZCOUNT', index, '-inf', asked['until'] or '+inf')
  if asked.newest then
    if asked.after then stop = math.min(stop, rank(index, asked.after, false)) end
    first = math.max(first, stop - asked.count)
  else
    if asked.after then first = math.max(first, rank(index, asked.after, true)) end
    stop = math.min(stop, first + asked.count)
  end
  if first < stop then
    for _, value in ipairs(call('ZRANGE', index, first, stop - 1, 'WITHSCORES')) do found[#found + 1] = value end
  end
end
return found
