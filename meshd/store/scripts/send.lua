-- Makes one send, atomically, in one round trip; safe to repeat with the same id.
--
-- KEYS  1 stream the message goes to (private, or the group for a broadcast)
--       2 group, for the copy of a message that is not private
--       3 dedupe   4 rate   5 audit   6 count   7 registry of the target   8 lease of the target
--       9 how the request stands (only for a request)
-- ARGV  1 id   2 limit (0: no gate)   3 window, seconds   4 enforce 0/1   5 maxlen   6 dedupe TTL
--       7 count floor   8 copy to the group 0/1   9 sender   10 target   11 text   12 ts   13 sid
--       14 the text's beginning, for the audit   15 digest of what is sent   16 TTL of how the request stands
--       17… further fields and values
-- Returns {verdict, entry id, n, held, rate, seconds left in the window}; verdict: sent, again, denied, or other:
-- something else was sent under this id.
--
-- Lua does not roll back, so the order is what makes it safe: nothing is written before the dedupe key was
-- asked; the dedupe key is set only behind the entry; what may fail without harm comes last, by pcall.
local held = redis.call('EXISTS', KEYS[7], KEYS[8]) > 0 and 1 or 0
local before = redis.call('GET', KEYS[3])
if before then
  -- Before there were digests it was the entry id alone.
  local at, digest = string.match(before, '^(%S+) ?(%S*)$')
  return {(digest == '' or digest == ARGV[15]) and 'again' or 'other', at or '', 0, held, 0, 0}
end

local rate, left, verdict = 0, 0, 'allow'
local limit = tonumber(ARGV[2])
if limit > 0 then
  if redis.call('SET', KEYS[4], 1, 'EX', ARGV[3], 'NX') then
    rate = 1
  else
    rate = redis.call('INCR', KEYS[4])
  end
  left = redis.call('TTL', KEYS[4])
  if left < 0 then
    -- A 0.1 program died between its INCR and its EXPIRE: without this the window would never end.
    redis.call('EXPIRE', KEYS[4], ARGV[3])
    left = tonumber(ARGV[3])
  end
  if rate > limit then
    verdict = ARGV[4] == '1' and 'deny' or 'observe'
  end
end

local entry, n = '', 0
if verdict ~= 'deny' then
  -- The count continues from the sender's floor after the store was rolled back: that is how a receiver
  -- sees what a failover took.
  n = redis.call('INCR', KEYS[6])
  local floor = tonumber(ARGV[7])
  if n <= floor then
    n = floor + 1
    redis.call('SET', KEYS[6], n)
  end
  redis.call('EXPIRE', KEYS[6], 86400)
  local fields = {'from', ARGV[9], 'msg', ARGV[11], 'ts', ARGV[12], 'id', ARGV[1], 'v', '1', 'sid', ARGV[13], 'n', n}
  for i = 17, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  if ARGV[10] == '*' then
    fields[#fields + 1] = 'to'
    fields[#fields + 1] = '*'
  end
  entry = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
  if entry.err then
    -- A count that goes on would tell the receiver of a loss: nothing was sent.
    redis.call('SET', KEYS[6], n - 1, 'EX', 86400)
    return entry
  end
  redis.call('SET', KEYS[3], entry .. ' ' .. ARGV[15], 'EX', ARGV[6])
  if KEYS[9] then
    redis.call('SET', KEYS[9], 'waits ' .. ARGV[9], 'EX', ARGV[16])
  end
  if ARGV[8] == '1' then
    fields[#fields + 1] = 'to'
    fields[#fields + 1] = ARGV[10]
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
  end
end
if limit > 0 then
  redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', ARGV[5], '*', 'from', ARGV[9], 'to', ARGV[10], 'rate', rate,
    'window', ARGV[3], 'verdict', verdict, 'ts', ARGV[12], 'msg', ARGV[14])
end
if verdict == 'deny' then
  return {'denied', '', 0, held, rate, left}
end
return {'sent', entry, n, held, rate, left}
