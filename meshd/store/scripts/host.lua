-- Takes a name for this daemon, or tells who holds it.
--
-- KEYS  1 lease   2 registry   3 presence   4 read record   5 group   6 the name's stream
-- ARGV  1 instance   2 TTL, seconds   3 registry JSON ('' for a hidden one)   4 name   5 now   6 takeover 0/1
--       7 nonce of the ping that tells the holder
-- Returns {1, read record or '', last id of the group, previous holder or ''}, or {0, holder, its registry or ''}.
--
-- Lua does not roll back: everything is read before anything is written, so that a key of a wrong type takes no name.
local holder = redis.call('GET', KEYS[1])
local previous = ''
if holder and holder ~= ARGV[1] then
  if ARGV[6] ~= '1' then
    local registry = redis.pcall('GET', KEYS[2])
    return {0, holder, type(registry) == 'string' and registry or ''}
  end
  previous = holder
end
local read = redis.call('GET', KEYS[4]) or ''
local last = '0-0'
local tail = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)
if #tail > 0 then
  last = tail[1][1]
end
redis.call('ZRANGEBYSCORE', KEYS[3], 0, 0)
if previous ~= '' then
  redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)
end

redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[5] + ARGV[2], ARGV[4])
end
if previous ~= '' then
  -- A ping, so that 0.1 programs know it; its answer tells us that the holder has let go.
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', 2000, '*', 'from', ARGV[4], 'msg_type', 'ping', 'nonce', ARGV[7],
    'ts', ARGV[5], 'moved', ARGV[1])
end
return {1, read, last, previous}
