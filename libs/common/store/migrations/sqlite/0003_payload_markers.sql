-- A body that was not kept leaves a row that says why, with an empty body.
ALTER TABLE payloads ADD COLUMN dropped TEXT;
