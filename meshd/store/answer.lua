-- Puts an answer on a short-lived stream, a pong or the reply to a request, unless nobody waits for it any more.
--
-- KEYS  1 stream   2 who has stopped waiting (only for a reply)
-- ARGV  1 TTL, seconds   2… fields and values
-- Returns {'answered'}, or {'late', who asked}.
local asker = KEYS[2] and redis.call('GET', KEYS[2])
if asker then
  return {'late', asker}
end
redis.call('XADD', KEYS[1], 'MAXLEN', 100, '*', unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {'answered'}
