-- Serializes migrations and changes of partitions.
SELECT pg_advisory_xact_lock(7267361902)
