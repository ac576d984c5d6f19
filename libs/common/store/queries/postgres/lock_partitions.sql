-- Shared among those who write bodies; partitions are made between two of them.
SELECT pg_advisory_xact_lock_shared(7267361902)
