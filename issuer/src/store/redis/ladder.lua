-- One step of a ladder of failures: `Ladder::step` in throttle/rule.rs says the same.
-- KEYS[1]  a hash: f failures in a row, u until when there is a delay, e when all is forgotten (both in ms)
-- ARGV     now in ms or '', step (attempt, strike, look, refund), free failures, first delay, longest delay, failures
--          that lock, length of the lock, memory (all in ms), the end of the delay that a refunded attempt set
-- answers  0 and the end of the delay that was set, or 1 and the milliseconds of the delay there is
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local step = ARGV[2]
local free, first, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local failures_max, lock, memory = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local stored = redis.call('HMGET', KEYS[1], 'f', 'u', 'e')
local failures, until_ms = tonumber(stored[1] or '0'), tonumber(stored[2] or '0')
local expires = tonumber(stored[3] or '0')
if now >= expires then
    failures, until_ms, expires = 0, 0, 0
end
until_ms = math.min(until_ms, now + math.max(longest, lock))

local function keep()
    redis.call('HSET', KEYS[1], 'f', string.format('%.0f', failures), 'u', string.format('%.0f', until_ms),
        'e', string.format('%.0f', expires))
    -- A minute longer than it means anything.
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', expires - now + 60000))
end

if step == 'refund' then
    if failures <= 1 then
        redis.call('DEL', KEYS[1])
    else
        failures = failures - 1
        if until_ms == tonumber(ARGV[9]) then
            until_ms = 0
        end
        keep()
    end
    return {0, 0}
end

local delay = math.max(until_ms - now, 0)
if step == 'strike' or (step == 'attempt' and delay == 0) then
    failures = failures + 1
    local further = 0
    if failures >= failures_max then
        further = lock
    elseif failures >= free then
        further = math.min(first * 2 ^ (failures - free), longest)
    end
    until_ms = math.max(now + further, until_ms)
    if failures >= failures_max then
        expires = until_ms
    else
        expires = math.max(until_ms, now + memory)
    end
    keep()
    if delay == 0 then
        return {0, until_ms}
    end
end
if delay > 0 then
    return {1, delay}
end
return {0, 0}
