-- The reply to a request has reached who asked: whoever gave it is told, and what comes after it becomes a message.
--
-- Its parameters: answers.py.
-- Returns {'taken'}.
redis.call('SET', KEY.asked, 'taken ' .. ARG.asker .. ' ' .. ARG.reply, 'EX', ARG.ttl)
redis.call('XADD', KEY.news, 'MAXLEN', CONST.MAXLEN, '*', 'id', ARG.reply)
redis.call('EXPIRE', KEY.news, ARG.news_ttl)
if redis.call('TTL', KEY.stream) == -1 then
  redis.call('EXPIRE', KEY.stream, ARG.reply_ttl) -- a 0.1 program replied
end
return {'taken'}
