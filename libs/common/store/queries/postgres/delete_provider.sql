-- Only if no model alias refers to it.
DELETE FROM providers
WHERE id = %(id)s
    AND NOT EXISTS (SELECT 1 FROM models WHERE provider_id = %(id)s)
    AND NOT EXISTS (
        SELECT 1 FROM models
        WHERE targets @> jsonb_build_array(jsonb_build_object('provider_id', %(id)s::text))
    )
RETURNING id
