-- Not while model aliases lead to it.
DELETE FROM providers
WHERE id = :id AND NOT EXISTS (SELECT 1 FROM models WHERE provider_id = :id)
RETURNING id
