-- Add several plain jobs to one queue, each once per idempotency key and only if it may name its documents.
-- KEYS[1] the answers of this call, should it come again; then three a job, '' for none: its idempotency key, the records of two documents
--   that it names
-- ARGV[1] prefix of the queue's keys, [2] now, [3] the jobs' options, [4] seconds to keep KEYS[1], [5] seconds to keep the records below
-- ARGV[6..] four a job: name, data, whose documents it may name ('' for anybody's), the record to keep under its key (@job@ becomes the id)
-- Returns for each its id, {the record of the first time}, or the number of the document that it may not name.
local before = redis.call('GET', KEYS[1])
if before then return cmsgpack.unpack(before) end
local FIRST_KEY, EACH_KEY, FIRST, EACH = 2, 3, 6, 4

-- `{userId, erasing?, …}` of api/ownership.py: one that is being erased is nobody's any more.
local function barred(record, user)
  if not record then return false end
  local ok, found = pcall(cjson.decode, record)
  return not ok or found.erasing ~= nil or (user ~= '' and found.userId ~= user)
end

local held = redis.call('MGET', unpack(KEYS, FIRST_KEY))
local answers, fresh, jobs, first, again = {}, {}, {}, {}, {}
for number = 1, #held / EACH_KEY do
  local at, arg = (number - 1) * EACH_KEY, FIRST + (number - 1) * EACH
  local key, user = KEYS[FIRST_KEY + at], ARGV[arg + 2]
  if barred(held[at + 2], user) then
    answers[number] = 1
  elseif barred(held[at + 3], user) then
    answers[number] = 2
  elseif held[at + 1] then
    answers[number] = {held[at + 1]}
  elseif first[key] then
    again[number] = first[key]
  else
    if key ~= '' then first[key] = number end
    fresh[#fresh + 1], jobs[#jobs + 1] = number, {ARGV[1], '', ARGV[arg], ARGV[arg + 1], ARGV[3], ARGV[2]}
  end
end
if #fresh == 0 then return answers end

-- Answers come last, so that a script that failed half-way answers nothing for work it did not accept.
local records = {}
for at, id in ipairs(addTogether(ARGV[1], jobs)) do
  local number = fresh[at]
  local key = KEYS[FIRST_KEY + (number - 1) * EACH_KEY]
  answers[number] = id
  if key ~= '' then
    records[number] = string.gsub(ARGV[FIRST + (number - 1) * EACH + 3], '@job@', id)
    redis.call('SET', key, records[number], 'EX', ARGV[5])
  end
end
for number, one in pairs(again) do answers[number] = {records[one]} end
redis.call('SET', KEYS[1], cmsgpack.pack(answers), 'EX', ARGV[4])
return answers
