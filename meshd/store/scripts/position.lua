-- Writes how far a name was read. Who does not hold the name writes over its own last word only: what another daemon
-- that held it in between has read is not unread again.
--
-- KEYS  1 lease   2 read record
-- ARGV  1 instance   2 record, JSON with the instance as `h`   3 TTL, seconds
-- Returns {1} if the name is ours, else {0}.
local ours = redis.call('GET', KEYS[1]) == ARGV[1]
if not ours then
  local before = redis.call('GET', KEYS[2])
  if before then
    local sound, record = pcall(cjson.decode, before)
    if not (sound and type(record) == 'table' and record.h == ARGV[1]) then
      return {0}
    end
  end
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return {ours and 1 or 0}
