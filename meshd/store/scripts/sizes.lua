-- Ids and sizes in bytes of the entries behind a cursor: what is too large to be fetched is passed over by its id.
-- Its parameters: peeking.py.
--
-- One by one, because a script has them all in memory; behind one that is very large it ends.
local found, from = {}, '(' .. ARG.cursor
for _ = 1, tonumber(ARG.most) do
  local entries = redis.call('XRANGE', KEY.stream, from, '+', 'COUNT', 1)
  if #entries == 0 then
    break
  end
  local id, fields, size = entries[1][1], entries[1][2], 0
  for i = 1, #fields do
    size = size + #fields[i]
  end
  found[#found + 1] = {id, size}
  if size > CONST.LARGE then
    break
  end
  from = '(' .. id
end
return found
