INSERT INTO admin_token (id, token_hash, created_at)
VALUES (1, :token_hash, :created_at::timestamptz)
ON CONFLICT (id) DO UPDATE SET
    token_hash = excluded.token_hash, created_at = excluded.created_at
RETURNING token_hash
