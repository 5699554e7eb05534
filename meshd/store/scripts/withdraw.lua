-- Takes a reply back that nobody has taken; it is sent as a message then.
--
-- KEYS  1 reply stream   2 how the request stands
-- ARGV  1 id of the reply
-- Returns {'taken'} if it was taken after all, or {'withdrawn'}.
if string.match(redis.call('GET', KEYS[2]) or '', '^taken [%w_-]+ (%S+)$') == ARGV[1] then
  return {'taken'}
end
-- Not one that stands beside others: a 0.1 program's could not be given again.
if #redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2) == 1 then
  redis.call('DEL', KEYS[1])
end
return {'withdrawn'}
