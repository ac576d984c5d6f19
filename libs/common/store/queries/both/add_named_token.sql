-- Returns no row if there is a token with this name. Does not return the hash.
INSERT INTO admin_tokens (name, role, token_hash, created_at)
VALUES (:id, :role, :token_hash, :created_at::timestamptz)
ON CONFLICT (name) DO NOTHING
RETURNING name, role, created_at
