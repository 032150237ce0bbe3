-- What both scripts start with: the call's argument, and the records that it names.
-- ARGV[1] is one packed list, its first value the time of the call; KEYS holds every record once.
local TOP = 9007199254740991
local a = cmsgpack.unpack(ARGV[1])
local now = a[1]

-- Tells whether every number from one place to another is whole.
local function are_whole(first, last)
  local type, top = type, TOP
  for i = first, last do
    local v = a[i]
    if type(v) == 'number' and (v % 1 ~= 0 or v > top or v < -top) then return false end
  end
  return true
end

-- Reads every record; after `last`, the argument names those taken over, which follow in ARGV.
local raw, records
local function read(last)
  raw, records = redis.call('MGET', unpack(KEYS)), {}
  for i = last + 1, #a do
    if not raw[a[i]] then raw[a[i]] = ARGV[i - last + 1] end
  end
end

local function record(k)
  local r = records[k]
  if not r then
    r = raw[k] and cmsgpack.unpack(raw[k]) or {}
    records[k] = r
  end
  return r
end

