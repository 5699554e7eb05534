-- Makes one send, atomically, in one round trip; safe to repeat with the same id. Its parameters: sending.py.
--
-- Behind its arguments come further fields and values. Returns verdict, entry id, n, held, rate, seconds left in the
-- window; verdict: sent, again, denied, or other: something else was sent under this id; or busy: there is no room, and
-- nothing happened: then the oldest entry's id, and as n how many wait.
--
-- Lua does not roll back, so the order is what makes it safe: nothing is written before the dedupe key was
-- asked; the dedupe key is set only behind the entry; what may fail without harm comes last, by pcall.

-- Of one sender's daemon so many ids are remembered, however fast it sends.
local function forget_oldest()
  local many = redis.pcall('XLEN', KEY.remembered)
  if type(many) ~= 'number' or many < CONST.DEDUPE_MOST + CONST.DEDUPE_PAGE then
    return
  end
  local found = redis.pcall('XRANGE', KEY.remembered, '-', '+', 'COUNT', CONST.DEDUPE_PAGE)
  if found.err then
    return
  end
  -- What stands there may be a stranger's: it is part of a key's name, and never a key.
  local prefix, keys = string.sub(KEY.dedupe, 1, -#ARG.id - 1), {}
  for k, entry in ipairs(found) do
    keys[k] = prefix .. entry[2][2]
  end
  redis.pcall('XTRIM', KEY.remembered, 'MAXLEN', '=', many - CONST.DEDUPE_PAGE)
  redis.pcall('DEL', unpack(keys))
end

local held = redis.call('EXISTS', KEY.registry, KEY.lease) > 0 and 1 or 0
local before = redis.call('GET', KEY.dedupe)
if before then
  -- Before there were digests it was the entry id alone, and then the two of them.
  local at, digest, count = string.match(before, '^(%S+) ?(%S*) ?(%d*)$')
  if digest ~= '' and digest ~= ARG.digest then
    return {'other', at or '', 0, held, 0, 0}
  end
  return {'again', at or '', tonumber(count) or 0, held, 0, 0}
end

local direct, how, most, oldest = ARG.target ~= '*', '~', CONST.MAXLEN
if direct then
  how, most, oldest = room()
  if not how and ARG.again == '1' then
    how, most = '=', 2147483647 -- it has had its room already
  elseif not how then
    return {'busy', oldest, most, held, 0, 0}
  end
end

local rate, left, verdict = 0, 0, 'allow'
local limit = tonumber(ARG.limit)
if limit > 0 then
  if redis.call('SET', KEY.rate, 1, 'EX', CONST.GATE_WINDOW, 'NX') then
    rate = 1
  else
    rate = redis.call('INCR', KEY.rate)
  end
  left = redis.call('TTL', KEY.rate)
  if left < 0 then
    -- A 0.1 program died between its INCR and its EXPIRE: without this the window would never end.
    redis.call('EXPIRE', KEY.rate, CONST.GATE_WINDOW)
    left = CONST.GATE_WINDOW
  end
  if rate > limit then
    verdict = ARG.enforce == '1' and 'deny' or 'observe'
  end
end

local entry, n = '', 0
if verdict ~= 'deny' then
  -- The count continues from the sender's floor after the store was rolled back: that is how a receiver
  -- sees what a failover took. What was on its way before this one is counted, too: it was there, and is gone.
  n = redis.call('INCR', KEY.counter)
  local floor = tonumber(ARG.floor)
  if n <= floor then
    n = floor + tonumber(ARG.ahead) + 1
    redis.call('SET', KEY.counter, n)
  end
  redis.call('EXPIRE', KEY.counter, CONST.COUNT_TTL)
  local fields = {'from', ARG.sender, 'msg', ARG.text, 'ts', ARG.ts, 'id', ARG.id, 'v', '1', 'sid', ARG.sid, 'n', n}
  for i = REST, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  if not direct then
    fields[#fields + 1] = 'to'
    fields[#fields + 1] = '*'
  end
  entry = redis.pcall('XADD', KEY.stream, 'MAXLEN', how, most, '*', unpack(fields))
  if entry.err then
    -- A count that goes on would tell the receiver of a loss: nothing was sent.
    redis.call('SET', KEY.counter, n - 1, 'EX', CONST.COUNT_TTL)
    return entry
  end
  redis.call('SET', KEY.dedupe, entry .. ' ' .. ARG.digest .. ' ' .. n, 'EX', CONST.DEDUPE_TTL)
  if type(redis.pcall('XADD', KEY.remembered, '*', 'id', ARG.id)) == 'string' then
    redis.pcall('EXPIRE', KEY.remembered, CONST.DEDUPE_TTL)
    forget_oldest()
  end
  if direct then
    redis.pcall('EXPIRE', KEY.stream, CONST.STREAM_TTL)
  end
  if KEY.asked then
    redis.call('SET', KEY.asked, 'waits ' .. ARG.sender, 'EX', ARG.asks)
  end
  if ARG.copy == '1' then
    local at = '*'
    if ARG.target == '*' then
      at = entry -- one cursor counts for both streams
    else
      fields[#fields + 1] = 'to'
      fields[#fields + 1] = ARG.target
    end
    local copied = redis.pcall('XADD', KEY.copies, 'MAXLEN', '~', CONST.MAXLEN, at, unpack(fields))
    if copied.err and at ~= '*' then -- the group went back and this stream did not
      redis.pcall('XADD', KEY.copies, 'MAXLEN', '~', CONST.MAXLEN, '*', unpack(fields))
    end
  end
end
if limit > 0 then
  redis.pcall('XADD', KEY.audit, 'MAXLEN', '~', CONST.MAXLEN, '*', 'from', ARG.sender, 'to', ARG.target, 'rate',
    rate, 'window', CONST.GATE_WINDOW, 'verdict', verdict, 'ts', ARG.ts, 'msg', ARG.preview)
end
if verdict == 'deny' then
  return {'denied', '', 0, held, rate, left}
end
return {'sent', entry, n, held, rate, left}
