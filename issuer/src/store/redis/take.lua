-- What there is of something; a lease on it when there is nothing.
-- KEYS[1]  a string: what a replica left, or a lease
-- ARGV     the lease, its life in ms
-- answers  what there is, or nil when the lease was taken
local kept = redis.call('GET', KEYS[1])
if kept then
    return kept
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
