-- Puts a ping into a name's mailbox, where it pushes nothing out that its agent may still miss.
--
-- Its parameters: pinging.py.
-- Returns {'pinged', 0, ''}, or {'busy', how many entries wait, the oldest one's id}.
local how, most, oldest = room()
if not how then
  return {'busy', most, oldest}
end
redis.call('XADD', KEY.stream, 'MAXLEN', how, most, '*', unpack(ARGV))
redis.pcall('EXPIRE', KEY.stream, CONST.STREAM_TTL)
return {'pinged', 0, ''}
