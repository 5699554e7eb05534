-- Puts an answer on a short-lived stream, a pong or the reply to a request, unless nobody waits for it any more.
--
-- KEYS  1 stream   2 how the request stands (only for a reply)
-- ARGV  1 TTL, seconds   2… fields and values; of a reply the last are `id` and its id
-- Returns {'answered'}, {'waits', who asked} if the asker's daemon will tell that it has it, {'taken'} if it has told
-- that before, or {'late', who asked}.
local last, state, asker, taken = #ARGV
if KEYS[2] then
  state, asker, taken = string.match(redis.call('GET', KEYS[2]) or '', '^(%a+) ([%w_-]+) ?(%S*)$')
  if state == 'taken' and taken == ARGV[last] then
    return {'taken'}
  elseif state and state ~= 'waits' then
    return {'late', asker}
  elseif not state then
    last = last - 2 -- a 0.1 program asked
  end
end
redis.call('XADD', KEYS[1], 'MAXLEN', 100, '*', unpack(ARGV, 2, last))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return state and {'waits', asker} or {'answered'}
