-- Keys of a team that are not revoked, newest first.
SELECT id, name, prefix, enabled, last_used_at
FROM proxy_keys
WHERE team_id = :id AND revoked_at IS NULL
ORDER BY created_at DESC, id DESC
LIMIT :rows
