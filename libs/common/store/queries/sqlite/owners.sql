-- Who minted each id of a JSON array, by the newest row of it: two steps in the
-- primary key for each id, however often a long conversation told its id.
SELECT newest.id, newest.resource_id, newest.account_id
FROM json_each(:ids) AS asked
JOIN minted_ids AS newest
  ON newest.id = asked.value
 AND newest.created_at = (SELECT max(created_at) FROM minted_ids WHERE id = asked.value)
