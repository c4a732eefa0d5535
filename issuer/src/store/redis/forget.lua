-- Removes what there is, and tells everybody.
-- KEYS[1]  a string: what a replica left, or a lease
-- ARGV     the channel, what is told
-- answers  1
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
