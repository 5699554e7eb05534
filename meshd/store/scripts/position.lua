-- Writes how far a name was read, and removes the entries up to there from its stream. Who does not hold the name
-- writes over its own last word only: what another daemon that held it in between has read is not unread again.
--
-- Its parameters: leases.py.
-- Returns {1 if the name is ours, 1 if it was written}, 0 for what is not so.
local ours = redis.call('GET', KEY.lease) == ARG.instance
if not ours then
  local before = redis.call('GET', KEY.read)
  if before then
    local sound, record = pcall(cjson.decode, before)
    if not (sound and type(record) == 'table' and record.h == ARG.instance) then
      return {0, 0}
    end
  end
end
redis.call('SET', KEY.read, ARG.record, 'EX', CONST.READ_TTL)
-- By pcall: there may be no stream, or something else in its place, and an access list of an older version does not
-- allow XTRIM. Then what was read stays until it is pushed out.
local sound, found = pcall(facts)
local added = sound and found['entries-added'] or -1
if added >= tonumber(ARG.ordinal) and sound and not is_before(found['last-generated-id'], ARG.received) then
  redis.pcall('XTRIM', KEY.stream, 'MINID', ARG.begin)
end
return {ours and 1 or 0, 1}
