"""What the server of a ``RedisLedger`` does in one step, in Lua: whole, and with nobody beside it.

Lua's numbers are exact below 2**53; what is added is written with ``%.0f``, since Lua itself would write 1e+15. Each
change carries the token of who asked for it: what is asked again, its answer being lost, is answered not done again.
"""

from __future__ import annotations

RESERVE = """
-- KEYS: the entry, the index of what is reserved, the mark of what is void, the balances
-- ARGV: token, until, worst case, seconds to keep the entry, seconds to keep balances, where fields begin;
--       for each balance its limit, 1 if that is binding, 1 if it is kept for ever; then the entry's fields
local told = redis.call('HMGET', KEYS[1], 'asked', 'told', 'state')
if told[3] then
  return told[1] == ARGV[1] and told[2] or 'there'
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  return 'void'
end
local worst, first, after, answer = tonumber(ARGV[3]), tonumber(ARGV[6]), {}, 'reserved'
for number = 1, #KEYS - 3 do
  local key, at = KEYS[number + 3], 4 + 3 * number
  local spent, limit = after[key] or tonumber(redis.call('GET', key) or 0), tonumber(ARGV[at])
  after[key] = spent + worst
  if after[key] > limit and ARGV[at + 1] == '1' then
    return string.format('refused %d %.0f', number, spent)
  elseif after[key] >= 2 ^ 53 then
    return 'large'
  elseif after[key] > limit then
    answer = answer .. string.format(' %d %.0f', number, after[key])
  end
end
redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1])
redis.call('HSET', KEYS[1], 'asked', ARGV[1], 'told', answer, unpack(ARGV, first))
redis.call('EXPIRE', KEYS[1], ARGV[4])
for number = 1, #KEYS - 3 do
  redis.call('INCRBY', KEYS[number + 3], ARGV[3])
  if ARGV[6 + 3 * number] == '0' then
    redis.call('EXPIRE', KEYS[number + 3], ARGV[5])
  end
end
return answer
"""

SETTLE = """
-- KEYS: the entry, the index of what is reserved
-- ARGV: token, cost or '', seconds to keep the entry; then fields
local told = redis.call('HMGET', KEYS[1], 'state', 'settled', 'reserved_micros', 'balances')
if told[1] ~= 'reserved' then
  return told[2] == ARGV[1] and 1 or 0
end
local cost = ARGV[2] == '' and told[3] or ARGV[2]
for _, balance in ipairs(cjson.decode(told[4])) do
  if redis.call('EXISTS', balance) == 1 then
    redis.call('INCRBY', balance, string.format('%.0f', tonumber(cost) - tonumber(told[3])))
  end
end
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'cost_micros', cost, unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZREM', KEYS[2], KEYS[1])
return 1
"""

VOID = """
-- KEYS: a mark that this is void, should it still come; the entry, the index of what is reserved; ARGV: token
redis.call('SET', KEYS[1], 1, 'EX', 600)
local told = redis.call('HMGET', KEYS[2], 'asked', 'state', 'reserved_micros', 'balances')
if told[1] == ARGV[1] and told[2] == 'reserved' then
  for _, balance in ipairs(cjson.decode(told[4])) do
    if redis.call('EXISTS', balance) == 1 then
      redis.call('DECRBY', balance, told[3])
    end
  end
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], KEYS[2])
end
return 1
"""

HITS = """
-- KEYS: that this has been said, the hits of a day; ARGV: seconds to keep those; then which, and how many
if redis.call('SET', KEYS[1], 1, 'NX', 'EX', 60) then
  for at = 2, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[2], ARGV[at], ARGV[at + 1])
  end
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
return 1
"""

RECOVER = """
-- KEYS: the index of what is reserved, the entries; ARGV: the time, then why for each
local recovered = 0
for number = 2, #KEYS do
  local told = redis.call('HMGET', KEYS[number], 'state', 'reserved_micros', 'at')
  if told[1] == 'reserved' then
    local latency_s = math.max(0, tonumber(ARGV[1]) - tonumber(told[3]))
    redis.call('HSET', KEYS[number], 'state', 'estimated', 'cost_micros', told[2], 'basis', 'estimated',
      'error', ARGV[number], 'latency_s', string.format('%.3f', latency_s))
    recovered = recovered + 1
  end
  redis.call('ZREM', KEYS[1], KEYS[number])
end
return recovered
"""

SUM = """
-- KEYS: entries; ARGV: a project, or nothing for those of none
local micros, whose = 0, {}
for number, key in ipairs(KEYS) do
  local told = redis.call('HMGET', key, 'state', 'project', 'cost_micros', 'reserved_micros')
  if told[1] and told[2] == (ARGV[1] or false) then
    micros = micros + tonumber(told[3] or told[4])
    table.insert(whose, number)
  end
end
return {string.format('%.0f', micros), whose}
"""
