-- One row; run for each key in a batch.
UPDATE proxy_keys SET last_used_at = max(coalesce(last_used_at, ''), ?)
WHERE id = ?
