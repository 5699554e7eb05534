-- Stops waiting for the reply to a request, unless it is there: who replies later is told, and sends a message.
--
-- KEYS  1 reply stream   2 who has stopped waiting
-- ARGV  1 who asked   2 TTL, seconds
-- Returns {'kept', fields and values of the reply}, or {'late'}.
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if #entries > 0 then
  return {'kept', entries[1][2]}
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return {'late'}
