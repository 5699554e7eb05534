-- Appends one entry to a short-lived stream and lets it expire: a pong, or the reply to a request.
--
-- KEYS  1 stream
-- ARGV  1 TTL, seconds   2… fields and values
redis.call('XADD', KEYS[1], 'MAXLEN', 100, '*', unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
