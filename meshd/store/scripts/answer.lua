-- Puts an answer on a short-lived stream, a pong or the reply to a request, unless nobody waits for it any more.
--
-- Its parameters: answers.py.
-- Behind its arguments come fields and values; of a reply the last are `id` and its id.
-- Returns {'answered'}, {'waits', who asked} if the asker's daemon will tell that it has it, {'taken'} if it has told
-- that before, or {'late', who asked}.
local last, state, asker, taken = #ARGV
if KEY.asked then
  state, asker, taken = string.match(redis.call('GET', KEY.asked) or '', '^(%a+) ([%w_-]+) ?(%S*)$')
  if state == 'taken' and taken == ARGV[last] then
    return {'taken'}
  elseif state and state ~= 'waits' then
    return {'late', asker}
  elseif not state then
    last = last - 2 -- a 0.1 program asked
  end
end
redis.call('XADD', KEY.stream, 'MAXLEN', CONST.MAXLEN, '*', unpack(ARGV, REST, last))
redis.call('EXPIRE', KEY.stream, ARG.ttl)
return state and {'waits', asker} or {'answered'}
