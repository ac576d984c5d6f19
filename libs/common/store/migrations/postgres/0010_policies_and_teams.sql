-- What requests of a key may ask for (JSON, see libs/common/proxy_keys.py: Policy). Null
-- allows everything.
ALTER TABLE proxy_keys ADD COLUMN policy jsonb;
-- Its share where requests wait for upstream keys.
ALTER TABLE proxy_keys ADD COLUMN queue_weight double precision NOT NULL DEFAULT 1;
-- A team without a row here has no policy: its keys share what they made all the same.
CREATE TABLE teams (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    policy     jsonb,
    created_at timestamptz NOT NULL
);
CREATE INDEX proxy_keys_team ON proxy_keys (team_id) WHERE team_id IS NOT NULL;
