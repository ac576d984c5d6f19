-- A shard uses this database.
INSERT INTO shards (name, instance, since, seen_at)
VALUES (:name, :instance, :now, :now)
ON CONFLICT (name, instance) DO UPDATE SET seen_at = excluded.seen_at
RETURNING name
