-- As in Postgres.
ALTER TABLE proxy_keys ADD COLUMN team_id TEXT;
ALTER TABLE requests ADD COLUMN team_id TEXT;
ALTER TABLE minted_ids ADD COLUMN tenant TEXT;
ALTER TABLE minted_ids ADD COLUMN repeated INTEGER;
