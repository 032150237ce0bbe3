-- Reads rows of links on their way up, notes, and which nodes are due.
-- KEYS: the days of the space, the nodes' rows, the notes. ARGV: what names start with, the day
-- before which a node is due, how many at most, how many nodes KEYS has, the longest way up.
-- What stands above those rows is in the same slot, by its tag. The reply is empty if it is too far.
local prefix, before, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count, longest = tonumber(ARGV[4]), tonumber(ARGV[5])
local NONE = string.rep('\0', 8)
local rows, seen = {}, {}

local too_long = false
local function climb(name)
  for _ = 1, longest do
    if name == NONE or seen[name] then return end
    seen[name] = true
    local data = redis.call('GET', prefix .. 'n' .. name)
    if not data then return end
    rows[#rows + 1] = name
    rows[#rows + 1] = data
    name = string.sub(data, 1, 8)
  end
  too_long = true
end

local due = {}
if most > 0 then
  due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. before, 'WITHSCORES', 'LIMIT', 0, most)
end
for k = 2, count + 1 do climb(string.sub(KEYS[k], -8)) end
for i = 1, #due, 2 do climb(due[i]) end
if too_long then return {} end
local notes = {}
for k = count + 2, #KEYS do
  notes[#notes + 1] = redis.call('GET', KEYS[k]) or ''
end
return {rows, notes, due}
