-- Corrects what was charged before.
-- ARGV[1] is one packed list: now, before, #corrections, six values each (kind, key, ttl, three more),
-- then the keys whose records are taken over from former names; those follow in ARGV.
local before = a[2]
if before >= 0 then
  local t = redis.call('TIME')
  if t[1] * 1000000 + t[2] >= before then return redis.error_reply('EPOCH') end
end
local last = 3 + 6 * a[3]
if not are_whole(4, last) then
  return redis.error_reply('GUARDRAIL not a whole number')
end
read(last)

local ttls = {}

local function clamped(v)
  if v < 0 then return 0 end
  return math.min(v, TOP)
end

local function adjust(r, slot, delta)
  local n = #r
  if delta > 0 then
    if n > 0 and r[n - 1] >= slot then
      r[n] = clamped(r[n] + delta)
    else
      r[n + 1] = slot
      r[n + 2] = clamped(delta)
    end
    return true
  end
  for j = 1, n, 2 do
    if r[j] == slot then
      r[j + 1] = clamped(r[j + 1] + delta)
      return true
    end
  end
  return false
end

local function drain(r, delta, charged, refunded)
  local value, total = r[1] or 0, r[2] or 0
  if delta >= 0 then
    if value == 0 then value = charged end
    r[1], r[2] = math.min(value + delta, TOP), total
    return true
  end
  local refund = math.min(-delta, charged - now - (total - refunded))
  if refund <= 0 then return false end
  r[1], r[2] = value - refund, total + refund
  return true
end

-- Takes back a charge made at `since`: of it no more can have drained than time has passed.
local function undrain(r, delta, reach, since)
  local total = r[2] or 0
  local refund = math.min(-delta, math.max(reach - now - total, -delta - (now - since)))
  if not r[1] or refund <= 0 then return false end
  r[1], r[2] = r[1] - refund, total + refund
  return true
end

local function leave(r, k, member, expires)
  for j = 1, #r, 2 do
    if r[j] == member and (expires == 0 or r[j + 1] == expires) then
      table.remove(r, j)
      table.remove(r, j)
      return true
    end
  end
  return false
end

local function renew(r, member, expires)
  for j = 1, #r, 2 do
    if r[j] == member and r[j + 1] > now then
      if expires > r[j + 1] then r[j + 1] = expires end
      return true
    end
  end
  return false
end

for i = 4, last, 6 do
  local kind, k, ttl = a[i], place(a[i + 1]), a[i + 2]
  local r = record(k)
  local changed = true
  if moved[a[i + 1]] and (kind == 5 or (kind == 2 and a[i + 3] < 0)) then
    -- The later of two lines stands: less may be due to the other.
    changed = false
  elseif kind == 1 then
    changed = adjust(r, a[i + 3], a[i + 4])
  elseif kind == 2 then
    changed = drain(r, a[i + 3], a[i + 4], a[i + 5])
  elseif kind == 3 then
    changed = leave(r, k, a[i + 3], a[i + 4])
  elseif kind == 5 then
    changed = undrain(r, a[i + 3], a[i + 4], a[i + 5])
  else
    changed = renew(r, a[i + 3], a[i + 4])
  end
  if changed and ttl > (ttls[k] or -1) then ttls[k] = ttl end
end

for k, ttl in pairs(ttls) do
  local r = records[k]
  if #r == 0 then
    redis.call('DEL', names[k])
  else
    local text = cmsgpack.pack(r)
    if ttl > 0 then
      redis.call('SET', names[k], text, 'PX', ttl)
    else
      redis.call('SET', names[k], text, 'KEEPTTL')
    end
  end
end
return redis.status_reply('OK')
