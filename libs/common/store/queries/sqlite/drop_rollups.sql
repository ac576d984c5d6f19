-- Deletes a bounded number of older rows, oldest first.
DELETE FROM rollups
WHERE (step_seconds, starts_at, model, resource_id, proxy_key_id) IN (
    SELECT step_seconds, starts_at, model, resource_id, proxy_key_id FROM rollups
    WHERE step_seconds = :step_seconds AND starts_at < :before
    ORDER BY starts_at LIMIT :most
)
