-- Renews a name's lease and its registry entry, or gives them up. A lease that has run out is not renewed: another
-- daemon may have held it since, and has then left word of how far it read (host.lua). What is kept for a name that
-- nobody holds does not run out while it is held.
--
-- Its parameters: leases.py.
-- Returns {1} if the name is ours (or was given up), else {0}.
local holder = redis.call('GET', KEY.lease)
if ARG.ttl == '0' then
  if holder and holder ~= ARG.instance then
    return {0}
  end
  redis.call('DEL', KEY.lease, KEY.registry)
  redis.call('ZADD', KEY.presence, 'XX', ARG.now, ARG.name)
  return {1}
end
if holder ~= ARG.instance then
  return {0}
end
redis.call('SET', KEY.lease, ARG.instance, 'EX', ARG.ttl)
if ARG.entry ~= '' then
  redis.call('SET', KEY.registry, ARG.entry, 'EX', ARG.ttl)
  redis.call('ZADD', KEY.presence, ARG.now + ARG.ttl, ARG.name)
end
redis.pcall('EXPIRE', KEY.read, CONST.READ_TTL)
redis.pcall('EXPIRE', KEY.stream, CONST.STREAM_TTL)
return {1}
