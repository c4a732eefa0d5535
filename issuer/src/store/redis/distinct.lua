-- One step of a set of different members: `Distinct::step` in throttle/rule.rs says the same.
-- KEYS[1]  a sorted set: members, by the millisecond in which each was last seen
-- ARGV     now in ms or '', member, window in ms, limit, what many of them do (restarts, stays)
-- answers  1 if there are more than the limit, 0 if not
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local member, window, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
redis.call('ZADD', KEYS[1], 'GT', string.format('%.0f', now), member)
-- A minute longer than it means anything.
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', window + 60000))
local size = redis.call('ZCARD', KEYS[1])
if size <= limit then
    return 0
end
if ARGV[5] == 'restarts' then
    redis.call('DEL', KEYS[1])
elseif size > limit + 1 then
    redis.call('ZPOPMIN', KEYS[1], string.format('%.0f', size - limit - 1))
end
return 1
