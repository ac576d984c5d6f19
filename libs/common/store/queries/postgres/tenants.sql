-- Whose each id is, by its oldest row, of whichever day: a later answer may repeat an id
-- that its client chose. Null for a row from before there were tenants.
SELECT asked.id, oldest.tenant, oldest.request_id, oldest.created_at
FROM unnest(%(ids)s::text[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT tenant, request_id, created_at FROM minted_ids
    WHERE minted_ids.id = asked.id
    ORDER BY created_at
    LIMIT 1
) AS oldest
