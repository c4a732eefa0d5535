-- One step of a rate (GCRA): `Rate::step` in throttle/rule.rs says the same.
-- KEYS[1]  a string: when the events so far would be forgotten, in microseconds
-- ARGV     now in ms or '', interval in us, tolerance in us, 1 to count an event or 0 to ask only
-- answers  0 and nothing, or 1 and the microseconds until it would be let through
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
now = now * 1000
local interval, tolerance, counts = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local latest = now + tolerance
local arrival = tonumber(redis.call('GET', KEYS[1]) or '0')
arrival = math.min(math.max(arrival, now), latest)
local next_arrival = arrival + interval
if next_arrival > latest then
    return {1, next_arrival - latest}
end
if counts then
    -- A minute longer than it means anything.
    local life = math.ceil((next_arrival - now) / 1000) + 60000
    redis.call('SET', KEYS[1], string.format('%.0f', next_arrival), 'PX', string.format('%.0f', life))
end
return {0, 0}
