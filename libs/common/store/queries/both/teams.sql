-- By id. `keys`: that are not revoked.
SELECT
    id, name, policy, key_defaults, budget, created_at,
    (SELECT count(*) FROM proxy_keys AS k WHERE k.team_id = teams.id AND k.revoked_at IS NULL) AS keys
FROM teams
WHERE id > :after AND (:id::text IS NULL OR id = :id::text)
ORDER BY id
LIMIT :rows
