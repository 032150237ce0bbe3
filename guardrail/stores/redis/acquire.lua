-- Decides one request: evaluates every cell, then applies the charges that are admitted.
-- ARGV[1] is one packed list: now, ahead, before, bound, refuse, #charges, (binding, after) each,
-- #cells, ten numbers each, then the keys whose records are taken over from former names; those
-- follow in ARGV.
-- Nothing is written before everything was read and checked.
local ahead, before, bound, charges = a[2], a[3], a[4], a[6]

if ahead >= 0 or before >= 0 then
  local t = redis.call('TIME')
  local clock = t[1] * 1000000 + t[2]
  if before >= 0 and clock >= before then return redis.error_reply('EPOCH') end
  local late = now - clock
  if ahead >= 0 and late > ahead then
    return redis.error_reply('AHEAD ' .. string.format('%.0f', late))
  end
end

local first = 7 + 2 * charges
local last = first + 10 * a[first]
read(last)

local full
local function is_full()
  if full == nil then full = bound >= 0 and redis.call('DBSIZE') >= bound end
  return full
end

local refused, left_out, out = {}, {}, {0}
for c = 1, charges do
  refused[c] = false
  out[c + 1] = 0
end

-- Tells the slot whose leaving makes room for what is too much.
local function makes_room(r, slot, span, excess)
  for j = 1, #r, 2 do
    if r[j] > slot - span and r[j] < slot then
      excess = excess - r[j + 1]
      if excess <= 0 then return r[j] end
    end
  end
  return slot
end

-- Tells how many members are live, whether one is, and for a refusal the expiry that makes room.
local function members_of(r, member, ceiling)
  local live, present, ends = 0, 0, {}
  for j = 1, #r, 2 do
    if r[j + 1] > now then
      live = live + 1
      ends[live] = r[j + 1]
      if r[j] == member then present = 1 end
    end
  end
  if ceiling < 0 or present == 1 or live < ceiling then return live, present, -1, false end
  table.sort(ends)
  return live, present, ceiling > 0 and ends[live - ceiling + 1] or -1, true
end

local o = charges + 1
for i = first + 1, last, 10 do
  local kind, charge, k, spill = a[i], a[i + 1], a[i + 2], a[i + 4]
  local slot, span, floor, amount, ceiling = a[i + 5], a[i + 6], a[i + 7], a[i + 8], a[i + 9]
  -- Of a set the first of them is its member, a text, and the second when that one leaves.
  local written = kind == 1 and span or slot
  if not (a[i + 3] % 1 == 0 and written % 1 == 0 and floor % 1 == 0 and amount % 1 == 0
      and ceiling % 1 == 0 and written <= TOP and floor <= TOP and amount <= TOP
      and ceiling <= TOP) then
    return redis.error_reply('GUARDRAIL not a whole number')
  end
  k, spill = places[k] or k, places[spill] or spill
  a[i + 2] = k
  local spilled, r = 0, nil
  if spill ~= 0 and not raw[k] and is_full() then
    spilled = 1
    if spill < 0 then
      left_out[charge] = true
      r = {}
    else
      k = spill
      a[i + 2] = spill
    end
  end
  r = r or record(k)
  local n, used, second, frees, refunded, over = #r, 0, 0, -1, 0, false
  if kind == 1 then
    used, second, frees, over = members_of(r, slot, ceiling)
  elseif floor > 0 then
    used = floor
    if n > 0 then
      if r[1] > used then used = r[1] end
      refunded = r[2] or 0
    end
    over = ceiling >= 0 and used + amount > ceiling
  else
    second = slot
    if n > 0 and r[n - 1] > second then second = r[n - 1] end
    local oldest = second - span
    for j = 1, n, 2 do
      if r[j] > oldest then used = used + r[j + 1] end
    end
    over = ceiling >= 0 and used + amount > ceiling
    if over and span > 1 then frees = makes_room(r, second, span, used + amount - ceiling) end
    if used > TOP then used = TOP end
  end
  if over then refused[charge] = true end
  out[o + 1], out[o + 2], out[o + 3], out[o + 4], out[o + 5] = used, second, frees, refunded, spilled
  o = o + 5
end

local admitted = a[5] == 0
for c = 1, charges do
  if refused[c] and a[5 + 2 * c] == 1 and a[6 + 2 * c] == 0 and not left_out[c] then
    admitted = false
  end
end
local applies = {}
for c = 1, charges do
  local after = a[6 + 2 * c]
  if left_out[c] or (after > 0 and not refused[after]) then refused[c] = false end
  if refused[c] then out[c + 1] = 1 end
  local tried = admitted
  if after > 0 then tried = refused[after] end
  applies[c] = tried and not refused[c] and not left_out[c]
end
if admitted then out[1] = 1 end

local function entered(r, member, expires)
  local kept, found = {}, false
  for j = 1, #r, 2 do
    local e = r[j + 1]
    if e > now then
      if r[j] == member then
        found = true
        if expires > e then e = expires end
      end
      kept[#kept + 1] = r[j]
      kept[#kept + 1] = e
    end
  end
  if not found then
    kept[#kept + 1] = member
    kept[#kept + 1] = expires
  end
  return kept
end

local function live_slots(r, oldest)
  local kept = {}
  for j = 1, #r, 2 do
    if r[j] > oldest then
      kept[#kept + 1] = r[j]
      kept[#kept + 1] = r[j + 1]
    end
  end
  return kept
end

local ttls = {}
for i = first + 1, last, 10 do
  local k, amount = a[i + 2], a[i + 8]
  if applies[a[i + 1]] and (amount > 0 or a[i] == 1) then
    local r = record(k)
    if a[i] == 1 then
      r = entered(r, a[i + 5], a[i + 6])
    elseif a[i + 7] > 0 then
      local line = a[i + 7]
      if r[1] and r[1] > line then line = r[1] end
      line = line + amount
      r[1] = line < TOP and line or TOP
      r[2] = r[2] or 0
    else
      local slot, n = a[i + 5], #r
      if n > 0 then
        if r[n - 1] > slot then slot = r[n - 1] end
        if r[1] <= slot - a[i + 6] then
          r = live_slots(r, slot - a[i + 6])
          n = #r
        end
      end
      if n > 0 and r[n - 1] == slot then
        amount = amount + r[n]
        n = n - 2
      end
      r[n + 1] = slot
      r[n + 2] = amount < TOP and amount or TOP
    end
    records[k] = r
    local ttl = a[i + 3]
    if ttl > (ttls[k] or 0) then ttls[k] = ttl end
  end
end

for k, ttl in pairs(ttls) do
  redis.call('SET', names[k], cmsgpack.pack(records[k]), 'PX', ttl)
end
return out
