import { createHash } from 'node:crypto'

/** A Lua script with the digest by which the server knows it. */
export interface Script {
  readonly text: string
  readonly digest: string
}

/** Time is the server's own, in whole ms: no instance's clock decides anything. */
const NOW = `
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function int(n) return string.format('%.0f', n) end
local function changed(meta, changes, channel, inst, id)
  redis.call('ZADD', changes, redis.call('HINCRBY', meta, 'seq', 1), id)
  redis.call('PUBLISH', channel, 'r ' .. inst .. ' ' .. id)
end
`

/**
 * Says that an instance lives and tells what has changed since it last looked.
 * KEYS meta instances changes · ARGV instance, epoch it knows, epoch to begin, ms to live, grace ms, seen, canary
 */
export const BEAT = script(`
local t = now()
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  epoch = ARGV[3]
  -- Whoever knew an older epoch has uses to write back, and so may others: nothing is granted before.
  local open = 0
  if ARGV[2] ~= '' then open = t + ARGV[5] end
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'open', int(open))
end
redis.call('HSETNX', KEYS[1], 'canary', ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', int(t - ARGV[4]))
redis.call('ZADD', KEYS[2], int(t), ARGV[1])
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
local reply = { epoch, int(t), redis.call('ZCARD', KEYS[2]), seq, redis.call('HGET', KEYS[1], 'canary') }
if epoch == ARGV[2] and seq > tonumber(ARGV[6]) then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[6], '+inf')) do reply[#reply + 1] = id end
end
return reply
`)

/**
 * Stores a record unless a newer one is there, or another token of the same generation.
 * KEYS meta records versions changes · ARGV channel, instance, id, generation, tag, sealed
 */
export const SAVE = script(`
local stored = redis.call('HGET', KEYS[3], ARGV[3])
if stored then
  local generation, tag = string.match(stored, '^(%d+) (.*)$')
  if tonumber(ARGV[4]) < tonumber(generation) then return 0 end
  if tonumber(ARGV[4]) == tonumber(generation) and tag ~= '' and tag ~= ARGV[5] then return 0 end
end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4] .. ' ' .. ARGV[5])
changed(KEYS[1], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return 1
`)

/** KEYS meta records versions changes rests, then all of the credential alone · ARGV channel, instance, id */
export const REMOVE = script(`
redis.call('HSET', KEYS[2], ARGV[3], '-')
redis.call('HDEL', KEYS[3], ARGV[3])
redis.call('HDEL', KEYS[5], ARGV[3])
for i = 6, #KEYS do redis.call('DEL', KEYS[i]) end
changed(KEYS[1], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return 1
`)

/** KEYS records rests · ARGV ids */
export const LOOK = script(`
local t, reply = now(), {}
local records = redis.call('HMGET', KEYS[1], unpack(ARGV))
local rests = redis.call('HMGET', KEYS[2], unpack(ARGV))
for i, id in ipairs(ARGV) do
  local rest = math.max(0, tonumber(rests[i] or '0') - t)
  if rests[i] and rest == 0 then redis.call('HDEL', KEYS[2], id) end
  reply[2 * i - 1] = records[i] or ''
  reply[2 * i] = rest
end
return reply
`)

/** KEYS meta rests changes · ARGV channel, instance, key, ms */
export const REST = script(`
local till = now() + ARGV[4]
if till > tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or '0') then
  redis.call('HSET', KEYS[2], ARGV[3], int(till))
  changed(KEYS[1], KEYS[3], ARGV[1], ARGV[2], ARGV[3])
end
return 1
`)

/**
 * Claims the renewal of a credential.
 * KEYS meta versions claim · ARGV instance, epoch, ms to hold, id, generation, force
 */
export const CLAIM = script(`
local t = now()
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'open')
if meta[1] ~= ARGV[2] then return { 'held', 100 } end
local open = tonumber(meta[2] or '0')
if t < open then return { 'held', open - t } end
local stored = string.match(redis.call('HGET', KEYS[2], ARGV[4]) or '', '^(%d+) ')
if tonumber(stored or '-1') > tonumber(ARGV[5]) then return { 'newer', 0 } end
local claim = redis.call('HMGET', KEYS[3], 'owner', 'till', 'intent', 'intentAt', 'rest', 'reason')
local till = tonumber(claim[2] or '0')
if claim[1] and claim[1] ~= ARGV[1] and till > t then return { 'held', till - t } end
if ARGV[6] ~= '1' then
  if claim[3] == ARGV[5] then return { 'doubt', t - tonumber(claim[4]) } end
  local rest = tonumber(claim[5] or '0') - t
  if rest > 0 then return { 'resting', rest, claim[6] } end
end
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'owner', ARGV[1], 'till', int(t + ARGV[3]), 'fence', fence)
redis.call('PEXPIRE', KEYS[3], 864e5)
return { 'mine', fence }
`)

/**
 * Keeps a claim alive, or takes it up again where the store has lost it.
 * KEYS claim · ARGV instance, fence, ms to hold, generation of the intent or nothing
 */
export const KEEP_CLAIM = script(`
local t = now()
local claim = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if claim[1] and (claim[1] ~= ARGV[1] or claim[2] ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', ARGV[2], 'till', int(t + ARGV[3]))
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'intent', ARGV[4], 'intentAt', int(t)) end
redis.call('PEXPIRE', KEYS[1], 864e5)
return 1
`)

/**
 * Notes that a refresh token is about to be sent.
 * KEYS claim · ARGV instance, fence, generation
 */
export const INTEND = script(`
local t = now()
local claim = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'till')
if claim[1] ~= ARGV[1] or claim[2] ~= ARGV[2] or tonumber(claim[3]) <= t then return 0 end
redis.call('HSET', KEYS[1], 'intent', ARGV[3], 'intentAt', int(t))
return 1
`)

/** KEYS claim · ARGV channel, id, instance, fence, rest ms, reason */
export const UNCLAIM = script(`
local claim = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if claim[1] ~= ARGV[3] or claim[2] ~= ARGV[4] then return 0 end
redis.call('DEL', KEYS[1])
local rest = tonumber(ARGV[5])
if rest > 0 then
  redis.call('HSET', KEYS[1], 'rest', int(now() + rest), 'reason', ARGV[6])
  redis.call('PEXPIRE', KEYS[1], rest)
end
redis.call('PUBLISH', ARGV[1], 'u ' .. ARGV[3] .. ' ' .. ARGV[2])
return 1
`)

function script(body: string): Script {
  const text = NOW + body
  return { text, digest: createHash('sha1').update(text).digest('hex') }
}

/** Makes a script of a body that begins with what all have. */
export { script }
