-- Those that no request used for long.
DELETE FROM unpriced_models WHERE last_seen_at < :before::timestamptz
RETURNING model
