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
if not are_whole(first + 1, last) then
  return redis.error_reply('GUARDRAIL not a whole number')
end
read(last)

local dirty, ttls = {}, {}

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

for i = first + 1, last, 10 do
  local charge, k, spill, ceiling = a[i + 1], a[i + 2], a[i + 4], a[i + 9]
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
  local n = #r
  if a[i] == 0 then
    local slot, span, floor, amount = a[i + 5], a[i + 6], a[i + 7], a[i + 8]
    local used, frees, refunded = 0, -1, 0
    if floor > 0 then
      used = math.max(r[1] or 0, floor)
      refunded = r[2] or 0
      slot = 0
    else
      if n > 0 and r[n - 1] > slot then slot = r[n - 1] end
      local oldest = slot - span
      for j = 1, n, 2 do
        if r[j] > oldest then used = used + r[j + 1] end
      end
    end
    if ceiling >= 0 and used + amount > ceiling then
      refused[charge] = true
      if span > 1 then
        local excess = used + amount - ceiling
        frees = slot
        for j = 1, n, 2 do
          if r[j] > slot - span and r[j] < slot then
            excess = excess - r[j + 1]
            if excess <= 0 then
              frees = r[j]
              break
            end
          end
        end
      end
    end
    out[#out + 1] = math.min(used, TOP)
    out[#out + 1] = slot
    out[#out + 1] = frees
    out[#out + 1] = refunded
  else
    local member, live, present, frees = a[i + 5], 0, 0, -1
    for j = 1, n, 2 do
      if r[j + 1] > now then
        live = live + 1
        if r[j] == member then present = 1 end
      end
    end
    if ceiling >= 0 and present == 0 and live >= ceiling then
      refused[charge] = true
      if ceiling > 0 then
        local ends = {}
        for j = 1, n, 2 do
          if r[j + 1] > now then ends[#ends + 1] = r[j + 1] end
        end
        table.sort(ends)
        frees = ends[live - ceiling + 1]
      end
    end
    out[#out + 1] = live
    out[#out + 1] = present
    out[#out + 1] = frees
    out[#out + 1] = 0
  end
  out[#out + 1] = spilled
end

local admitted = a[5] == 0
for c = 1, charges do
  local after = a[6 + 2 * c]
  if refused[c] and a[5 + 2 * c] == 1 and after == 0 and not left_out[c] then admitted = false end
end
for c = 1, charges do
  local after = a[6 + 2 * c]
  if left_out[c] or (after > 0 and not refused[after]) then refused[c] = false end
end
if admitted then out[1] = 1 end
for c = 1, charges do
  if refused[c] then out[c + 1] = 1 end
end

local function applies(c)
  local after = a[6 + 2 * c]
  if refused[c] or left_out[c] then return false end
  if after == 0 then return admitted end
  return refused[after]
end

for i = first + 1, last, 10 do
  local k = a[i + 2]
  if (a[i] == 1 or a[i + 8] > 0) and applies(a[i + 1]) then
    local r = record(k)
    local n = #r
    if a[i] == 1 then
      local kept, member, expires, found = {}, a[i + 5], a[i + 6], false
      for j = 1, n, 2 do
        if r[j + 1] > now then
          local e = r[j + 1]
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
      records[k] = kept
    elseif a[i + 7] > 0 then
      r[1] = math.min(math.max(r[1] or 0, a[i + 7]) + a[i + 8], TOP)
      r[2] = r[2] or 0
    else
      local slot, span = a[i + 5], a[i + 6]
      if n > 0 and r[n - 1] > slot then slot = r[n - 1] end
      if n > 0 and r[1] <= slot - span then
        local kept = {}
        for j = 1, n, 2 do
          if r[j] > slot - span then
            kept[#kept + 1] = r[j]
            kept[#kept + 1] = r[j + 1]
          end
        end
        r, n = kept, #kept
        records[k] = r
      end
      if n > 0 and r[n - 1] == slot then
        r[n] = math.min(r[n] + a[i + 8], TOP)
      else
        r[n + 1] = slot
        r[n + 2] = math.min(a[i + 8], TOP)
      end
    end
    dirty[k] = true
    if a[i + 3] > (ttls[k] or 0) then ttls[k] = a[i + 3] end
  end
end

for k in pairs(dirty) do
  redis.call('SET', KEYS[k], cmsgpack.pack(records[k]), 'PX', ttls[k])
end
return cmsgpack.pack(out)
