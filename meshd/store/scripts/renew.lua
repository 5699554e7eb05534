-- Renews a name's lease and its registry entry, or gives them up. A lease that has run out is not renewed: another
-- daemon may have held it since, and has then left word of how far it read (host.lua).
--
-- KEYS  1 lease   2 registry   3 presence
-- ARGV  1 instance   2 TTL, seconds (0: give up)   3 registry JSON ('' for a hidden one)   4 name   5 now
-- Returns {1} if the name is ours (or was given up), else {0}.
local holder = redis.call('GET', KEYS[1])
if ARGV[2] == '0' then
  if holder and holder ~= ARGV[1] then
    return {0}
  end
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZADD', KEYS[3], 'XX', ARGV[5], ARGV[4])
  return {1}
end
if holder ~= ARGV[1] then
  return {0}
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[5] + ARGV[2], ARGV[4])
end
return {1}
