-- How long KEY.stream may be with one more entry, so that no entry is pushed out which its agent may still miss.
--
-- What its holder has received it has on its disk; of a name that nobody holds, what was read is needed no more. Both
-- stand in the read record (hosting/moving.py), where anybody may have written anything.

-- Up to where entries may be pushed out, or nil.
local function floor(holder)
  local record = redis.pcall('GET', KEY.read)
  if type(record) ~= 'string' or #record > CONST.RECORD then
    return nil
  end
  local sound, said = pcall(cjson.decode, record)
  if not sound or type(said) ~= 'table' then
    return nil
  end
  if holder and said.h == holder and halves(said.r) then
    return said.r
  end
  return halves(said.p) and said.p
end

-- Returns '=' or '~' and the stream's greatest length for XADD; or nil, how many entries wait, and the oldest one's id.
local function room()
  local waiting = redis.pcall('XLEN', KEY.stream)
  if type(waiting) ~= 'number' then -- an access list of an older version does not allow it; or it is no stream
    waiting = redis.call('EXISTS', KEY.stream) == 1 and facts()['length'] or 0
  end
  if waiting < CONST.MAXLEN then
    return '=', waiting + 1
  end
  local holder = redis.pcall('GET', KEY.lease)
  if not holder and redis.call('EXISTS', KEY.registry) == 1 then
    return '~', CONST.MAXLEN -- a 0.1 program holds the name, and has always been sent to in this way
  end
  local found, up_to = facts(), floor(holder)
  local oldest = found['first-entry'][1]
  -- A place that the stream has not reached is of an earlier one: this one was made anew, or went back.
  if up_to and not is_before(up_to, oldest) and not is_before(found['last-generated-id'], up_to) then
    return '=', waiting
  end
  return nil, waiting, oldest
end
