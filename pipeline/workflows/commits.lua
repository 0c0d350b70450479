-- Commit several transitions, each both-or-neither by itself.
-- KEYS and ARGV: those of `advance`, four and six for each transition, one after the other.
-- Returns for each what `advance` returned, or the text of its error.
local answers = {}
for number = 0, #KEYS / 4 - 1 do
  local key, arg = number * 4, number * 6
  local ok, answer = pcall(advance, {unpack(KEYS, key + 1, key + 4)}, {unpack(ARGV, arg + 1, arg + 6)})
  if type(answer) == 'table' then answer = answer['err'] end
  answers[number + 1] = ok and answer or tostring(answer)
end
return answers
