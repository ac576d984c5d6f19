-- Serializes changes of the admin API, so that `before` in audit_log is exact.
SELECT pg_advisory_xact_lock(7267361903)
