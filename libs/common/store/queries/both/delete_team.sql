-- Not while it has keys, which would lose its policy.
DELETE FROM teams
WHERE id = :id AND NOT EXISTS (
    SELECT 1 FROM proxy_keys AS k WHERE k.team_id = teams.id AND k.revoked_at IS NULL
)
RETURNING id, name, policy, created_at
