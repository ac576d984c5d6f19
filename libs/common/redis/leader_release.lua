-- Give a leader's lease back, if it is still ours.
-- KEYS: lease (string: who holds it)   ARGV: holder
-- Returns 1 if it was ours, 0 if not.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
