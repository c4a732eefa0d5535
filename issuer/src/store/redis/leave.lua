-- Leaves what was read, unless it was changed or the lease ended since it was taken.
-- KEYS[1]  a string: what a replica left, or a lease
-- ARGV     the lease, what was read, its life in ms
-- answers  1 if it was left
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
