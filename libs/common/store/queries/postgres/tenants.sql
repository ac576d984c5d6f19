-- The tenant of each id, by its oldest row of any day: a later response may repeat an
-- id that its client chose. NULL for rows written before tenants existed.
SELECT asked.id, oldest.tenant, oldest.request_id, oldest.created_at
FROM unnest(%(ids)s::text[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT tenant, request_id, created_at FROM minted_ids
    WHERE minted_ids.id = asked.id
    ORDER BY created_at
    LIMIT 1
) AS oldest
