-- Whose each id is, by its oldest row: a later answer may repeat an id that its client
-- chose. The oldest may be in any partition; a step in the index of each.
SELECT asked.id,
       coalesce(
           oldest.tenant,
           'team:' || requests.team_id,
           'key:' || requests.proxy_key_id,
           ''
       ) AS tenant
FROM unnest(%(ids)s::text[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT tenant, request_id, created_at FROM minted_ids
    WHERE minted_ids.id = asked.id
    ORDER BY created_at
    LIMIT 1
) AS oldest
LEFT JOIN requests
  ON oldest.tenant IS NULL
 AND requests.id = oldest.request_id AND requests.created_at = oldest.created_at
