-- Renews a name's lease and its registry entry, or gives them up.
--
-- KEYS  1 lease   2 registry   3 presence
-- ARGV  1 instance   2 TTL, seconds (0: give up)   3 registry JSON ('' for a hidden one)   4 name   5 now
-- Returns '' if the name is ours (or was given up), else the instance that holds it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return holder
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZADD', KEYS[3], 'XX', ARGV[5], ARGV[4])
  return ''
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[5] + ARGV[2], ARGV[4])
end
return ''
