-- Writes what a call changes of links, and moves counters, if what it read still stands.
-- KEYS: the days of the space, the records that were read, then all others that are named.
-- ARGV[1] is one packed list: before, how long moves and days are kept, #read, #written, #days,
-- #moves, (key, ttl) of what is written, the days, the moves, then the keys whose records are taken
-- over from former names. ARGV goes on with what was read, what is written, the nodes of the days,
-- what the names of counters start with, and the records that are taken over.
-- Nothing is written before everything was read and compared.
local TOP = 9007199254740991
local a = cmsgpack.unpack(ARGV[1])
local before, moves_kept, days_kept = a[1], a[2], a[3]
local read, written, days, moves = a[4], a[5], a[6], a[7]
if before >= 0 then
  local t = redis.call('TIME')
  if t[1] * 1000000 + t[2] >= before then return redis.error_reply('EPOCH') end
end
for k = 1, read do
  if (redis.call('GET', KEYS[k + 1]) or '') ~= ARGV[k + 1] then return 0 end
end
local data = 1 + read
local nodes = data + written
local prefix = ARGV[nodes + days + 1]
local first_day = 7 + 2 * written
local first_move = first_day + days + 1

-- A move: its kind (1 unite, 2 hand on, 3 keep), the kind of counter (0 window, 1 line, 2 set), the
-- counter that is changed and where it may have been moved, #others, (counter, moved) of each.
local at = first_move
for _ = 1, moves do at = at + 5 + 2 * a[at + 4] end
local former = {}
for i = at, #a do former[a[i]] = ARGV[nodes + days + 2 + i - at] end

local records, ttls, marks, changed = {}, {}, {}, {}
local function record(k)
  if records[k] == nil then
    local raw = redis.call('GET', KEYS[k])
    ttls[k] = raw and redis.call('PTTL', KEYS[k]) or 0
    raw = raw or former[k]
    records[k] = raw and cmsgpack.unpack(raw) or false
  end
  return records[k]
end

local function copied(r)
  local copy = {}
  for i = 1, #r do copy[i] = r[i] end
  return copy
end

-- Adds up two windows, each in the order of its slots.
local function added(one, other)
  local sum, i, j = {}, 1, 1
  while one[i] or other[j] do
    local left, right = one[i] or math.huge, other[j] or math.huge
    local slot, value = math.min(left, right), 0
    if left == slot then
      value = value + one[i + 1]
      i = i + 2
    end
    if right == slot then
      value = value + other[j + 1]
      j = j + 2
    end
    sum[#sum + 1] = slot
    sum[#sum + 1] = math.min(value, TOP)
  end
  return sum
end

local function united(kind, one, other)
  if not one then return copied(other) end
  if kind == 0 then return added(one, other) end
  if kind == 1 then
    return {math.max(one[1], other[1]), math.max(one[2] or 0, other[2] or 0)}
  end
  local set, found = copied(one), {}
  for j = 1, #set, 2 do found[set[j]] = j end
  for j = 1, #other, 2 do
    local i = found[other[j]] or #set + 1
    set[i] = other[j]
    set[i + 1] = math.max(set[i + 1] or 0, other[j + 1])
  end
  return set
end

local function put(k, r, like)
  records[k] = r
  ttls[k] = math.max(ttls[k], ttls[like], 1)
  changed[k] = true
end

at = first_move
for _ = 1, moves do
  local move, kind, target, others = a[at], a[at + 1], a[at + 2], a[at + 4]
  marks[a[at + 3]] = false
  record(target)
  for o = at + 5, at + 4 + 2 * others, 2 do
    local k = a[o]
    local r = record(k)
    if move == 1 then marks[a[o + 1]] = string.sub(KEYS[target], #prefix + 1) end
    if r and move == 1 then put(target, united(kind, records[target], r), k) end
    if r and move == 2 then put(target, copied(r), k) end
  end
  at = at + 5 + 2 * others
end

for i = 1, written do
  local key, ttl, value = KEYS[a[6 + 2 * i]], a[7 + 2 * i], ARGV[data + i]
  if value == '' then
    redis.call('DEL', key)
  else
    redis.call('SET', key, value, 'PX', math.max(ttl, redis.call('PTTL', key)))
  end
end
for i = 1, days do
  local day, node = a[first_day + i], ARGV[nodes + i]
  if day == 0 then redis.call('ZREM', KEYS[1], node) else redis.call('ZADD', KEYS[1], day, node) end
end
if days > 0 then redis.call('PEXPIRE', KEYS[1], days_kept) end
for k, into in pairs(marks) do
  if into then
    redis.call('SET', KEYS[k], into, 'PX', moves_kept)
  else
    redis.call('DEL', KEYS[k])
  end
end
for k in pairs(changed) do
  redis.call('SET', KEYS[k], cmsgpack.pack(records[k]), 'PX', ttls[k])
end
return 1
