-- From here on wait for no lock longer: who asks for a table to itself keeps
-- everybody waiting who comes later.
SELECT set_config('lock_timeout', %(lock_ms)s, true)
