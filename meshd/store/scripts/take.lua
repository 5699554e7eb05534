-- The reply to a request has reached who asked: whoever gave it is told, and what comes after it becomes a message.
--
-- Its parameters: answers.py.
-- Returns {'taken'}.
redis.call('SET', KEY.asked, 'taken ' .. ARG.asker .. ' ' .. ARG.reply, 'EX', ARG.ttl)
redis.call('XADD', KEY.news, 'MAXLEN', CONST.MAXLEN, '*', 'id', ARG.reply)
redis.call('EXPIRE', KEY.news, ARG.news_ttl)
return {'taken'}
