-- Those that were not seen for long.
DELETE FROM shards WHERE seen_at < %(before)s::timestamptz RETURNING name
