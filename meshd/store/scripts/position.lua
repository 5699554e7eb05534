-- Writes how far a name was read. Who does not hold the name writes over its own last word only: what another daemon
-- that held it in between has read is not unread again.
--
-- Its parameters: leases.py.
-- Returns {1} if the name is ours, else {0}.
local ours = redis.call('GET', KEY.lease) == ARG.instance
if not ours then
  local before = redis.call('GET', KEY.read)
  if before then
    local sound, record = pcall(cjson.decode, before)
    if not (sound and type(record) == 'table' and record.h == ARG.instance) then
      return {0}
    end
  end
end
redis.call('SET', KEY.read, ARG.record, 'EX', ARG.ttl)
return {ours and 1 or 0}
