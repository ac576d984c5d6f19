-- How long the request waited in a queue before this decision, in milliseconds, because
-- what could serve it was at its limit. Null: it did not wait.
ALTER TABLE decisions ADD COLUMN waited_ms bigint;
