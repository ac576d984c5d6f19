-- Ends a leader lease if the holder still has it.
-- KEYS: lease (string: its holder)   ARGV: holder
-- Returns 1 if it had, else 0.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
