-- Stops waiting for the reply to a request, unless there is one: who replies later is told, and sends a message.
--
-- Its parameters: answers.py.
-- Returns {'kept', id, fields and values} of an entry, or {'late'}.
--
-- A 0.1 program replies all the same, and sets no expiry. So the stream is left behind with one: what is added to a key
-- that is there expires with it.
if redis.call('TTL', KEY.stream) == -1 then
  redis.call('EXPIRE', KEY.stream, ARG.reply_ttl)
end
if not string.match(redis.call('GET', KEY.asked) or '', '^taken ') then
  local entries = redis.call('XRANGE', KEY.stream, ARG.first, '+', 'COUNT', 1)
  if #entries > 0 then
    local id, fields, size = entries[1][1], entries[1][2], 0
    for i = 1, #fields do
      size = size + #fields[i]
    end
    return {'kept', id, size > CONST.LARGE and {} or fields} -- what is so large is no reply
  end
  redis.call('SET', KEY.asked, 'late ' .. ARG.asker, 'EX', ARG.ttl)
  if redis.call('EXISTS', KEY.stream) == 0 then
    redis.call('XADD', KEY.stream, 'MAXLEN', 0, '*', 'none', '') -- no entry stays
    redis.call('EXPIRE', KEY.stream, ARG.reply_ttl)
  end
end
return {'late'}
