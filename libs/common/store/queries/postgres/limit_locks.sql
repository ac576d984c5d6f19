-- Limits lock waits from here on: a waiting request for an exclusive table lock blocks
-- all later requests.
SELECT set_config('lock_timeout', %(lock_ms)s, true)
