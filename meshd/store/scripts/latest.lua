-- The last entries of two streams, without fetching them, and who holds a name.
--
-- Its parameters: latest.py.
-- Returns {id of the stream's last entry, the same of the group, who holds the name}, '' for what there is not.
local function last(stream)
  local entry = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return #entry > 0 and entry[1][1] or ''
end
return {last(KEY.stream), last(KEY.group), redis.call('GET', KEY.lease) or ''}
