-- What a new key of a team has if its creation does not say (JSON: fields of the key).
ALTER TABLE teams ADD COLUMN key_defaults jsonb;
