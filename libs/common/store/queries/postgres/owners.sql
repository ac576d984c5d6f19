-- Who minted each id, by its newest row: one lookup in the primary key for each id and
-- day, however often a long conversation contains its id.
SELECT asked.id, newest.resource_id, newest.account_id, newest.tenant,
       newest.repeated
FROM unnest(%(ids)s::text[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT resource_id, account_id, tenant, repeated FROM minted_ids
    WHERE minted_ids.id = asked.id
      AND created_at BETWEEN %(since)s AND %(until)s
    ORDER BY created_at DESC
    LIMIT 1
) AS newest
