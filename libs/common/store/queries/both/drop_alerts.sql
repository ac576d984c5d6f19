-- Old ones, delivered or given up.
DELETE FROM alerts WHERE created_at < :before::timestamptz
RETURNING id
