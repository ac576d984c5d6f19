-- Returns no row if there is a token already.
INSERT INTO admin_token (id, token_hash, created_at)
VALUES (1, :token_hash, :created_at::timestamptz)
ON CONFLICT (id) DO NOTHING
RETURNING id
