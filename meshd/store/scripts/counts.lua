-- Where a stream begins, and its counts.
--
-- Its parameters: leases.py.
-- Returns {id of its first entry or '', length, entries ever added, last id}; of a stream that is not there, zeros.
if redis.call('EXISTS', KEY.stream) == 0 then
  return {'', 0, 0, '0-0'}
end
local first, info, found = redis.call('XRANGE', KEY.stream, '-', '+', 'COUNT', 1), redis.call('XINFO', 'STREAM', KEY.stream), {}
for i = 1, #info, 2 do
  found[info[i]] = info[i + 1]
end
return {#first > 0 and first[1][1] or '', found['length'], found['entries-added'] or found['length'], found['last-generated-id']}
