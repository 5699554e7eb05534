-- Takes a reply back that nobody has taken; it is sent as a message then.
--
-- Its parameters: answers.py.
-- Returns {'taken'} if it was taken after all, or {'withdrawn'}.
if string.match(redis.call('GET', KEY.asked) or '', '^taken [%w_-]+ (%S+)$') == ARG.reply then
  return {'taken'}
end
-- Not one that stands beside others: a 0.1 program's could not be given again.
if #redis.call('XRANGE', KEY.stream, '-', '+', 'COUNT', 2) == 1 then
  redis.call('DEL', KEY.stream)
end
return {'withdrawn'}
