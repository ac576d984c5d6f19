-- Admin tokens with names and roles: admin, or viewer, which may only read. The first
-- token, `default`, is PROXY_ADMIN_TOKEN, a file, or in admin_token.
CREATE TABLE admin_tokens (
    name       TEXT PRIMARY KEY,
    role       TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL
) STRICT;

-- Every change through the admin API, written in the transaction of the change.
-- changes: the fields that differ, each with before and after; secrets are masked.
CREATE TABLE audit_log (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    actor       TEXT NOT NULL,  -- the name of the admin token
    address     TEXT,           -- the client's; NULL: the command line
    peer        TEXT,           -- who connected to the router: the client or a gateway
    action      TEXT NOT NULL,  -- create, change, revoke, delete
    object_type TEXT NOT NULL,  -- proxy_key, team, provider, model, admin_token
    object_id   TEXT NOT NULL,
    changes     TEXT NOT NULL
) STRICT;
CREATE INDEX audit_log_newest ON audit_log (created_at, id);
CREATE INDEX audit_log_object ON audit_log (object_id, created_at, id);
