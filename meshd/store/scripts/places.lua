-- Where messages stand in a stream, by their ids; of two with one id the older counts, which nobody can add later.
--
-- Its parameters: places.py.
-- Behind its arguments come the ids. Returns a list of {id, entry id}.
local wanted, left, found, from, looked = {}, 0, {}, '-', 0
for i = REST, #ARGV do
  if not wanted[ARGV[i]] then
    wanted[ARGV[i]] = true
    left = left + 1
  end
end
-- A few at a time, because a script has them all in memory.
while left > 0 and looked < CONST.MOST do
  local entries = redis.call('XRANGE', KEY.stream, from, '+', 'COUNT', 50)
  if #entries == 0 then
    break
  end
  for i = 1, #entries do
    local fields = entries[i][2]
    for j = 1, #fields, 2 do
      if fields[j] == 'id' and wanted[fields[j + 1]] then
        wanted[fields[j + 1]] = nil
        left = left - 1
        found[#found + 1] = {fields[j + 1], entries[i][1]}
      end
    end
  end
  looked = looked + #entries
  from = '(' .. entries[#entries][1]
end
return found
