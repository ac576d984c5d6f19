-- Shared by writers of bodies; excludes changes of partitions.
SELECT pg_advisory_xact_lock_shared(7267361902)
