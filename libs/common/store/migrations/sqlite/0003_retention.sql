-- Retention deletes the oldest rows a few thousand at a time, and finds them by these.
CREATE INDEX minted_ids_recent ON minted_ids (created_at);
CREATE INDEX payloads_recent ON payloads (created_at);
