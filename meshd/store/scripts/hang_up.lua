-- Stops waiting for the reply to a request, unless there is one: who replies later is told, and sends a message.
--
-- KEYS  1 reply stream   2 how the request stands
-- ARGV  1 who asked   2 TTL, seconds   3 the first entry to look at
-- Returns {'kept', id, fields and values} of an entry, or {'late'}.
if not string.match(redis.call('GET', KEYS[2]) or '', '^taken ') then
  local entries = redis.call('XRANGE', KEYS[1], ARGV[3], '+', 'COUNT', 1)
  if #entries > 0 then
    return {'kept', entries[1][1], entries[1][2]}
  end
  redis.call('SET', KEYS[2], 'late ' .. ARGV[1], 'EX', ARGV[2])
end
return {'late'}
