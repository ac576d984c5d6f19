-- As in Postgres.
ALTER TABLE teams ADD COLUMN key_defaults TEXT;
