"""What the server of a ``RedisShared`` does in one step, in Lua. Said twice, each does what it does once."""

from __future__ import annotations

ENTER = """
-- KEYS: for each gate what has passed, by seconds, and what is under way
-- ARGV: id, tokens, lease, seconds of a minute; for each gate requests, tokens and calls at once, or ''
local told = redis.call('TIME')
local now, second = told[1] + told[2] / 1e6, tonumber(told[1])
local function until_free(passed, limit, amount)
  if limit == '' then return 0 end
  local used, wait_s = 0, 0
  for _, each in ipairs(passed) do used = used + each[2] end
  for _, each in ipairs(passed) do
    if used == 0 or used + amount <= tonumber(limit) then break end
    used, wait_s = used - each[2], each[1] + ARGV[4] + 1 - now
  end
  return wait_s
end
for number = 1, #KEYS / 2 do
  local passed, under_way, at = KEYS[2 * number - 1], KEYS[2 * number], 2 + 3 * number
  if redis.call('ZSCORE', under_way, ARGV[1]) then return 'leave ' .. second end
  local requests, tokens, fields = {}, {}, redis.call('HGETALL', passed)
  for at_field = 1, #fields, 2 do
    local kind, began = string.match(fields[at_field], '(.):(%d+)')
    if tonumber(began) <= now - ARGV[4] - 1 then
      redis.call('HDEL', passed, fields[at_field])
    else
      table.insert(kind == 'r' and requests or tokens, {tonumber(began), tonumber(fields[at_field + 1])})
    end
  end
  local function earlier(one, other) return one[1] < other[1] end
  table.sort(requests, earlier)
  table.sort(tokens, earlier)
  local wait_s = math.max(until_free(requests, ARGV[at], 1), until_free(tokens, ARGV[at + 1], tonumber(ARGV[2])))
  redis.call('ZREMRANGEBYSCORE', under_way, '-inf', now)
  local full = ARGV[at + 2] ~= '' and redis.call('ZCARD', under_way) >= tonumber(ARGV[at + 2])
  if full or wait_s > 0 then return string.format('full %d %.6f', number - 1, wait_s) end
end
for number = 1, #KEYS / 2 do
  local passed, under_way = KEYS[2 * number - 1], KEYS[2 * number]
  redis.call('HINCRBY', passed, 'r:' .. second, 1)
  redis.call('HINCRBY', passed, 't:' .. second, ARGV[2])
  redis.call('EXPIRE', passed, ARGV[4] + 2)
  redis.call('ZADD', under_way, string.format('%.6f', now + ARGV[3]), ARGV[1])
  redis.call('EXPIRE', under_way, math.max(math.ceil(ARGV[3]) + 1, redis.call('TTL', under_way)))
end
return 'leave ' .. second
"""

LEFT = """
-- KEYS: as above; ARGV: id, the second in which it began, by how much its tokens are to be corrected
for number = 1, #KEYS / 2 do
  local passed, field = KEYS[2 * number - 1], 't:' .. ARGV[2]
  if redis.call('ZREM', KEYS[2 * number], ARGV[1]) == 1 and redis.call('HEXISTS', passed, field) == 1 then
    if redis.call('HINCRBY', passed, field, ARGV[3]) < 0 then redis.call('HSET', passed, field, 0) end
  end
end
"""

UNWELL = """
-- KEYS: the servers
local told = redis.call('TIME')
local now, servers, unwell = told[1] + told[2] / 1e6, redis.call('HGETALL', KEYS[1]), {}
for at = 1, #servers, 2 do
  local til, reason = string.match(servers[at + 1], '^(%S+) (.*)$')
  if tonumber(til) <= now then
    redis.call('HDEL', KEYS[1], servers[at])
  else
    local for_s = string.format('%.6f', til - now)
    for _, each in ipairs({servers[at], til, for_s, reason}) do table.insert(unwell, each) end
  end
end
return unwell
"""

FOUND = """
-- KEYS: the servers; ARGV: a server, for how long, why
if tonumber(ARGV[2]) <= 0 then return redis.call('HDEL', KEYS[1], ARGV[1]) end
local told = redis.call('TIME')
local til = told[1] + told[2] / 1e6 + ARGV[2]
local before = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '0 ', '^(%S+) ')
if til > tonumber(before) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.6f %s', til, ARGV[3]))
  redis.call('EXPIRE', KEYS[1], 86400)
end
"""
