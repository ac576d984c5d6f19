-- One process migrates, or makes partitions, at a time.
SELECT pg_advisory_xact_lock(7267361902)
