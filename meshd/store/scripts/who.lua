-- The index of names, and the registry entries of those that the caller knows, in one round trip.
-- Its parameters: who.py.
--
-- Behind the index come the registry keys, declared as every key is. Returns the index, name and score in turn, and a
-- registry entry or '' for each of the keys, cut where it is so long that it is none.
local index = redis.call('ZRANGEBYSCORE', KEY.presence, ARG.floor, '+inf', 'WITHSCORES', 'LIMIT', 0, CONST.NAMES)
local entries = {}
for first = 2, #KEYS, 1000 do -- unpack has a bound
  local values = redis.call('MGET', unpack(KEYS, first, math.min(first + 999, #KEYS)))
  for i = 1, #values do
    entries[#entries + 1] = string.sub(values[i] or '', 1, CONST.ENTRY)
  end
end
return {index, entries}
