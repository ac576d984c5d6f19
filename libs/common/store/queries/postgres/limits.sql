-- Bounds of one transaction. Set locally, not as start-up options, which
-- pgbouncer refuses: a stalled writer must not keep the lock from the others.
SELECT set_config('statement_timeout', %(statement_ms)s, true),
       set_config('lock_timeout', %(lock_ms)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s, true)
