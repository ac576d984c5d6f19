-- Keys of one team share what they made.
ALTER TABLE proxy_keys ADD COLUMN team_id text;
-- The team of a request's key when it came.
ALTER TABLE requests ADD COLUMN team_id text;
-- Whose id it is: `team:...`, `key:...`, or empty for a request without a proxy key.
-- Null in rows from before this column: their request says it.
ALTER TABLE minted_ids ADD COLUMN tenant text;
-- The answer may only have repeated the id, as lists do, perhaps one that its client
-- chose: whose it is the oldest row says.
ALTER TABLE minted_ids ADD COLUMN repeated boolean;
