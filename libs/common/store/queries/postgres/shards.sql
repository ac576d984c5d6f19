-- Who uses this database.
SELECT name, instance, since, seen_at FROM shards ORDER BY name, since
