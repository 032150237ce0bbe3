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

-- The name of each record. A counter that accounts share may have been moved to another's: `moved`
-- tells it, and `places` leads to the first key that means the same record.
local names, moved, places = KEYS, {}, {}
local function follow()
  local at = {}
  for k = 1, #KEYS do
    local name = KEYS[k]
    local _, stop = string.find(name, ':{links}c', 1, true)
    if stop then
      local tag = string.sub(name, 1, stop - 1)
      for _ = 1, 64 do
        local into = redis.call('GET', tag .. 'm' .. string.sub(name, stop + 1))
        if not into then break end
        if names == KEYS then names = {unpack(KEYS)} end
        name = tag .. 'c' .. into
        names[k], moved[k] = name, true
      end
      if at[name] then places[k] = at[name] else at[name] = k end
    end
  end
end

local function place(k)
  return places[k] or k
end

-- Reads every record; after `last`, the argument names those taken over, which follow in ARGV.
local raw, records
local function read(last)
  follow()
  raw, records = redis.call('MGET', unpack(names)), {}
  for i = last + 1, #a do
    local k = a[i]
    if not raw[k] and not moved[k] then raw[k] = ARGV[i - last + 1] end
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

