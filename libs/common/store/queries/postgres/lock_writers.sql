-- Writers take turns: what is counted is exact, and none can deadlock.
SELECT pg_advisory_xact_lock(7267361901)
