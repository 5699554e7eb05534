-- Takes a name for this daemon, or tells who holds it.
--
-- Its parameters: leases.py.
-- Returns {1, read record or '', last id of the group, previous holder or '', entries ever added to the name's stream,
-- how many of those that it has stand behind ARG.cursor, 1 if the last holder has left mail, id of the stream's first
-- entry or ''}, or {0, holder, its registry or ''}.
--
-- Lua does not roll back: everything is read before anything is written, so that a key of a wrong type takes no name.
local holder = redis.call('GET', KEY.lease)
local read = redis.call('GET', KEY.read) or ''
local previous = ''
if holder and holder ~= ARG.instance then
  if ARG.takeover ~= '1' then
    local registry = redis.pcall('GET', KEY.registry)
    return {0, holder, type(registry) == 'string' and registry or ''}
  end
  previous = holder
elseif not holder then
  -- A holder that did not give the name up may be there all the same, and not know that its lease is gone.
  local sound, record = pcall(cjson.decode, read)
  if sound and type(record) == 'table' and type(record.h) == 'string' and record.h ~= ARG.instance then
    previous = record.h
  end
end
local last = '0-0'
local tail = redis.call('XREVRANGE', KEY.group, '+', '-', 'COUNT', 1)
if #tail > 0 then
  last = tail[1][1]
end
redis.call('ZRANGEBYSCORE', KEY.presence, 0, 0)
local added, behind, first = 0, 0, ''
if redis.call('EXISTS', KEY.stream) == 1 then
  local found = facts()
  added, behind = found['entries-added'] or 0, found['length']
  first = behind > 0 and found['first-entry'][1] or ''
end
if behind > 0 and ARG.cursor ~= '0-0' then
  -- A few at a time, because a script has them all in memory.
  local from, entries = '(' .. ARG.cursor
  behind = 0
  repeat
    entries = redis.call('XRANGE', KEY.stream, from, '+', 'COUNT', 50)
    behind = behind + #entries
    from = #entries > 0 and '(' .. entries[#entries][1]
  until #entries < 50
end
local left = redis.call('EXISTS', KEY.left)

redis.call('SET', KEY.lease, ARG.instance, 'EX', ARG.ttl)
if ARG.entry ~= '' then
  redis.call('SET', KEY.registry, ARG.entry, 'EX', ARG.ttl)
  redis.call('ZADD', KEY.presence, ARG.now + ARG.ttl, ARG.name)
end
if previous ~= '' then
  -- A ping, so that 0.1 programs know it; its answer tells us that the holder has let go. It pushes nothing out,
  -- however full the mailbox is.
  redis.call('XADD', KEY.stream, '*', 'from', ARG.name, 'msg_type', 'ping', 'nonce', ARG.nonce, 'ts', ARG.now,
    'moved', ARG.instance)
end
redis.pcall('EXPIRE', KEY.stream, CONST.STREAM_TTL)
return {1, read, last, previous, added, behind, left, first}
