-- A body that was not kept leaves a row that says why, with an empty body. Bodies
-- are compressed already: Postgres need not try again.
ALTER TABLE payloads ADD COLUMN dropped text;
ALTER TABLE payloads ALTER COLUMN body SET STORAGE EXTERNAL;
