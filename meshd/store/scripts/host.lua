-- Takes a name for this daemon, or tells who holds it.
--
-- Its parameters: leases.py.
-- Returns {1, read record or '', last id of the group, previous holder or ''}, or {0, holder, its registry or ''}.
--
-- Lua does not roll back: everything is read before anything is written, so that a key of a wrong type takes no name.
local holder = redis.call('GET', KEY.lease)
local previous = ''
if holder and holder ~= ARG.instance then
  if ARG.takeover ~= '1' then
    local registry = redis.pcall('GET', KEY.registry)
    return {0, holder, type(registry) == 'string' and registry or ''}
  end
  previous = holder
end
local read = redis.call('GET', KEY.read) or ''
local last = '0-0'
local tail = redis.call('XREVRANGE', KEY.group, '+', '-', 'COUNT', 1)
if #tail > 0 then
  last = tail[1][1]
end
redis.call('ZRANGEBYSCORE', KEY.presence, 0, 0)
if previous ~= '' then
  redis.call('XREVRANGE', KEY.stream, '+', '-', 'COUNT', 1)
end

redis.call('SET', KEY.lease, ARG.instance, 'EX', ARG.ttl)
if ARG.entry ~= '' then
  redis.call('SET', KEY.registry, ARG.entry, 'EX', ARG.ttl)
  redis.call('ZADD', KEY.presence, ARG.now + ARG.ttl, ARG.name)
end
if previous ~= '' then
  -- A ping, so that 0.1 programs know it; its answer tells us that the holder has let go.
  redis.call('XADD', KEY.stream, 'MAXLEN', '~', CONST.MAXLEN, '*', 'from', ARG.name, 'msg_type', 'ping', 'nonce',
    ARG.nonce, 'ts', ARG.now, 'moved', ARG.instance)
end
return {1, read, last, previous}
