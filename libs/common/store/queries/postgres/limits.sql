-- Time limits of a transaction, so that a stalled writer releases its lock. Set
-- locally, because pgbouncer rejects them as startup options.
SELECT set_config('statement_timeout', %(statement_ms)s, true),
       set_config('lock_timeout', %(lock_ms)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s, true)
