-- Admin tokens with names and roles: admin, or viewer, which may only read. The first
-- token, `default`, is PROXY_ADMIN_TOKEN, a file, or in admin_token.
CREATE TABLE admin_tokens (
    name       text PRIMARY KEY,
    role       text NOT NULL,
    token_hash text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL
);

-- Every change through the admin API, written in the transaction of the change.
-- changes: the fields that differ, each with before and after; secrets are masked.
CREATE TABLE audit_log (
    id          text PRIMARY KEY,
    created_at  timestamptz NOT NULL,
    actor       text NOT NULL,  -- the name of the admin token
    address     text,           -- the client's; NULL: the command line
    peer        text,           -- who connected to the router: the client or a gateway
    action      text NOT NULL,  -- create, change, revoke, delete
    object_type text NOT NULL,  -- proxy_key, team, provider, model, admin_token
    object_id   text NOT NULL,
    changes     jsonb NOT NULL
);
CREATE INDEX audit_log_newest ON audit_log (created_at, id);
CREATE INDEX audit_log_object ON audit_log (object_id, created_at, id);
