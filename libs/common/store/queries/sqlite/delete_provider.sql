-- Only if no model alias refers to it.
DELETE FROM providers
WHERE id = :id
    AND NOT EXISTS (SELECT 1 FROM models WHERE provider_id = :id)
    AND NOT EXISTS (
        SELECT 1 FROM models, json_each(models.targets) AS target
        WHERE json_extract(target.value, '$.provider_id') = :id
    )
RETURNING id
