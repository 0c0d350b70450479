-- Exchange an endpoint's definition for one that means the same, if it is still the one that was read.
-- Not a change: no version moves, so that nobody opens again what he has opened, and what the receiver asked for stays.
--
-- KEYS 1 prefix
-- ARGV 1 endpoint, 2 the definition as it was read, 3 the same with other ciphertexts
-- Returns 1 or 0.

local record = key('endpoint', ARGV[1])
if call('HGET', record, 'definition') ~= ARGV[2] then return 0 end
call('HSET', record, 'definition', ARGV[3])
return 1
