-- What there is to know of KEY.stream, and which of two entry ids comes first: their halves have 64 bits, of which
-- Lua's numbers would lose some.
local function facts()
  local info, found = redis.call('XINFO', 'STREAM', KEY.stream), {}
  for i = 1, #info, 2 do
    found[info[i]] = info[i + 1]
  end
  return found
end

-- Its two halves, or nothing if it is no entry id.
local function halves(id)
  if type(id) == 'string' then
    return string.match(id, '^0*(%d+)%-0*(%d+)$')
  end
end

local function is_less(a, b)
  return #a < #b or (#a == #b and a < b)
end

local function is_before(a, b)
  local a_time, a_number = halves(a)
  local b_time, b_number = halves(b)
  return is_less(a_time, b_time) or (a_time == b_time and is_less(a_number, b_number))
end
