import { script } from './redis-scripts.ts'

/**
 * Grants places under the limits of one credential, and takes note of what is told.
 *
 * A window's log is a hash of buckets, a 256th of the window each: `W:B` counts the uses that may be made until
 * the end of bucket B, `W:total` their sum, `W:head` the first bucket that may still hold some. A place is
 * counted at the end of the time for which it is good, so it leaves the window no earlier than its use does.
 *
 * Instances that got less than they wanted stand in a line, by the time since when they want: nobody takes what
 * those before him are about to ask for, and while several want, each gets a share of what is free.
 *
 * KEYS meta instances log slots line
 * ARGV channel, id, instance, epoch, ms to live, want, good for ms, concurrency, slots, idle, uses, generation,
 *   number of rates, number of `made`, number of `returned`, then count and window of each rate,
 *   age, count and 1 or 0 (of this token) of each `made`, stamp and count of each `returned`
 */
export const ASK = script(`
local channel, id, me = ARGV[1], ARGV[2], ARGV[3]
local n = {}
for i = 5, #ARGV do n[i] = tonumber(ARGV[i]) end
local ttl, want, good, concurrency, held, idle, maxUses, generation = n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12]
local t = now()
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'open')
if meta[1] ~= ARGV[4] then return { -1 } end
local open = tonumber(meta[2] or '0')
local log = KEYS[3]

local windows, at = {}, 16
for i = 1, n[13] do
  local size = n[at + 1]
  windows[i] = { count = n[at], size = size, name = ARGV[at + 1], quantum = math.ceil(size / 256),
    span = size + math.min(10, math.floor(size / 100)) }
  at = at + 2
end
for _, w in ipairs(windows) do
  local state = redis.call('HMGET', log, w.name .. ':head', w.name .. ':total')
  w.head, w.total = tonumber(state[1] or '0'), tonumber(state[2] or '0')
  -- Buckets before this one have left the window: (b + 1) * quantum + span <= t.
  local first = math.floor((t - w.span) / w.quantum)
  if first > w.head then
    if w.total > 0 then
      local fields = {}
      for b = w.head, math.min(first - 1, w.head + 600) do fields[#fields + 1] = w.name .. ':' .. int(b) end
      for i, count in ipairs(redis.call('HMGET', log, unpack(fields))) do
        if count then
          w.total = w.total - count
          redis.call('HDEL', log, fields[i])
        end
      end
    end
    w.head = first
  end
end
local function add(w, stamp, count)
  local b = math.max(w.head, math.floor(stamp / w.quantum))
  redis.call('HINCRBY', log, w.name .. ':' .. int(b), count)
  w.total = w.total + count
end

local used, behind = 0, false
if maxUses > 0 then
  local state = redis.call('HMGET', log, 'generation', 'uses')
  local counted = tonumber(state[1] or '-1')
  if counted == generation then used = tonumber(state[2] or '0') end
  -- Its token is not the current one, and not the one to be counted.
  behind = counted > generation
end
for _ = 1, n[14] do
  for _, w in ipairs(windows) do
    if n[at] < w.span then add(w, t - n[at], n[at + 1]) end
  end
  if ARGV[at + 2] == '1' then used = used + n[at + 1] end
  at = at + 3
end
for _ = 1, n[15] do
  for _, w in ipairs(windows) do
    local b = math.floor(n[at] / w.quantum)
    local field = w.name .. ':' .. int(b)
    local there = math.min(n[at + 1], tonumber(redis.call('HGET', log, field) or '0'))
    if b >= w.head and there > 0 then
      redis.call('HINCRBY', log, field, -there)
      w.total = w.total - there
    end
  end
  if maxUses > 0 then used = math.max(0, used - n[at + 1]) end
  at = at + 2
end

local free = 1e9
for _, w in ipairs(windows) do free = math.min(free, w.count - w.total) end
if maxUses > 0 then free = math.min(free, maxUses - used) end
if behind then free = 0 end
free = math.max(0, free)

local others, holders = 0, 0
if concurrency > 0 then
  local slots = redis.call('HGETALL', KEYS[4])
  for i = 1, #slots, 2 do
    if slots[i] ~= me then
      local seen = tonumber(redis.call('ZSCORE', KEYS[2], slots[i]) or '0')
      if seen < t - ttl then redis.call('HDEL', KEYS[4], slots[i])
      else
        others = others + tonumber(slots[i + 1])
        holders = holders + 1
      end
    end
  end
end
local ahead, waiting, since, slotters = 0, 0, t, 0
local line = redis.call('HGETALL', KEYS[5])
for i = 1, #line, 2 do
  local from, till, forSlot = string.match(line[i + 1], '^(%d+) (%d+) (%d)$')
  if line[i] == me then since = math.min(t, tonumber(from))
  elseif tonumber(till) < t then redis.call('HDEL', KEYS[5], line[i])
  else
    waiting = waiting + 1
    if forSlot == '1' then slotters = slotters + 1 end
  end
end
for i = 1, #line, 2 do
  local from, till = string.match(line[i + 1], '^(%d+) (%d+)')
  if line[i] ~= me and tonumber(till) >= t and tonumber(from) < since then ahead = ahead + 1 end
end

local spare = math.max(0, concurrency - others - held)
local share = concurrency
if slotters > 0 then share = math.floor(concurrency / (math.max(holders, slotters) + 1)) end
local able = free
if concurrency > 0 then able = math.min(free, idle + spare) end
local granted = 0
if want > 0 and t >= open then
  granted = math.min(want, able)
  if waiting > 0 then
    granted = math.min(granted, math.max(0, able - ahead), math.max(1, math.ceil(able / (waiting + 1))))
    if slotters > 0 then granted = math.min(granted, idle + math.max(0, math.max(share, 1) - held)) end
  end
end
if granted > 0 then
  for _, w in ipairs(windows) do add(w, t + good, granted) end
  used = used + granted
  held = held + math.max(0, granted - idle)
  spare = math.max(0, concurrency - others - held)
end

local longest = 0
for _, w in ipairs(windows) do
  redis.call('HSET', log, w.name .. ':head', int(w.head), w.name .. ':total', int(w.total))
  longest = math.max(longest, w.span + good)
end
if maxUses > 0 then
  if not behind then redis.call('HSET', log, 'generation', int(generation), 'uses', int(used)) end
  redis.call('PERSIST', log)
elseif longest > 0 then redis.call('PEXPIRE', log, int(longest + 6e4)) end
if concurrency > 0 then
  if held > 0 then redis.call('HSET', KEYS[4], me, int(held)) else redis.call('HDEL', KEYS[4], me) end
  redis.call('PEXPIRE', KEYS[4], 864e5)
end

local retry = 0
if granted < want then
  if t < open then retry = open - t
  -- What is left is for those before it, or for the next round; what is held as slots comes back some time.
  elseif able > granted then retry = 5
  elseif free > granted then retry = 250
  else
    retry = 250
    for _, w in ipairs(windows) do
      if w.total >= w.count then
        local found
        local b = w.head
        local last = math.floor((t + good) / w.quantum) + 1
        while not found and b <= last do
          local fields = {}
          for i = b, math.min(b + 63, last) do fields[#fields + 1] = w.name .. ':' .. int(i) end
          for i, count in ipairs(redis.call('HMGET', log, unpack(fields))) do
            if count and tonumber(count) > 0 then found = b + i - 1 break end
          end
          b = b + 64
        end
        if found then retry = math.max(retry == 250 and 1 or retry, (found + 1) * w.quantum + w.span - t) end
      end
    end
  end
  local forSlot = concurrency > 0 and idle + spare <= granted
  -- Whoever got some stands behind those who did not.
  if granted > 0 then since = t end
  redis.call('HSET', KEYS[5], me, int(since) .. ' ' .. int(t + retry + 200) .. ' ' .. (forSlot and '1' or '0'))
  redis.call('PEXPIRE', KEYS[5], int(retry + 6e4))
  if forSlot and others > 0 then
    redis.call('PUBLISH', channel, 'w ' .. me .. ' ' .. int(math.floor(concurrency / (holders + 1))) .. ' ' .. id)
  end
elseif want > 0 or #line > 0 then redis.call('HDEL', KEYS[5], me) end
if slotters > 0 and spare > 0 then redis.call('PUBLISH', channel, 'f ' .. me .. ' ' .. id) end

local usesLeft = -1
if maxUses > 0 and not behind then usesLeft = math.max(0, maxUses - used) end
local reply = { granted, int(t + good), held, retry, slotters > 0 and 1 or 0, share, usesLeft, concurrency > 0 and spare or -1 }
for _, w in ipairs(windows) do reply[#reply + 1] = math.max(0, w.count - w.total) end
return reply
`)
