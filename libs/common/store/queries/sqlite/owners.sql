-- Who minted each id of a JSON array: the account by its newest row, the tenant by its
-- oldest, because a later response may repeat an id that its client chose. A few
-- lookups in the primary key for each id, however often a long conversation contains
-- it.
SELECT newest.id, newest.resource_id, newest.account_id,
       coalesce(
           oldest.tenant,
           'team:' || requests.team_id,
           'key:' || requests.proxy_key_id,
           ''
       ) AS tenant
FROM json_each(:ids) AS asked
JOIN minted_ids AS newest
  ON newest.id = asked.value
 AND newest.created_at = (SELECT max(created_at) FROM minted_ids WHERE id = asked.value)
JOIN minted_ids AS oldest
  ON oldest.id = asked.value
 AND oldest.created_at = (SELECT min(created_at) FROM minted_ids WHERE id = asked.value)
LEFT JOIN requests
  ON oldest.tenant IS NULL
 AND requests.id = oldest.request_id AND requests.created_at = oldest.created_at
