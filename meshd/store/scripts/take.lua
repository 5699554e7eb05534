-- The reply to a request has reached who asked: whoever gave it is told, and what comes after it becomes a message.
--
-- KEYS  1 how the request stands   2 stream of the news
-- ARGV  1 who asked   2 TTL, seconds   3 id of the reply ('' of a 0.1 one)   4 TTL of the news, seconds
-- Returns {'taken'}.
redis.call('SET', KEYS[1], 'taken ' .. ARGV[1] .. ' ' .. ARGV[3], 'EX', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', 100, '*', 'id', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {'taken'}
