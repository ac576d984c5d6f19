-- A shard uses this database. A new one is there before or after each batch of the others
-- (lock_writers), so that they tell it what they spend from then on.
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(7267361901))
INSERT INTO shards (name, instance, since, seen_at)
SELECT %(name)s, %(instance)s, %(now)s::timestamptz, %(now)s::timestamptz FROM locked
ON CONFLICT (name, instance) DO UPDATE SET seen_at = excluded.seen_at
RETURNING name
