-- The hash of the admin token that a router made, where none is configured. One row:
-- the first router that adds it wins, and the others use its token.
CREATE TABLE admin_token (
    id         integer PRIMARY KEY CHECK (id = 1),
    token_hash text NOT NULL,
    created_at timestamptz NOT NULL
);
