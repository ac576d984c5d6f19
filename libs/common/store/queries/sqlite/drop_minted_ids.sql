-- Deletes a bounded number of older rows, oldest first.
DELETE FROM minted_ids WHERE (id, created_at) IN (
    SELECT id, created_at FROM minted_ids
    WHERE created_at < :before ORDER BY created_at LIMIT :most
)
