-- Serializes writers, so that counters are exact and deadlocks are impossible.
SELECT pg_advisory_xact_lock(7267361901)
