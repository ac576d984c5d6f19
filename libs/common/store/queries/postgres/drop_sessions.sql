-- Deletes a bounded number of sessions last seen before a day, oldest first. Skips rows
-- that a writer has locked: their sessions were seen again.
WITH gone AS (
    DELETE FROM sessions WHERE id IN (
        SELECT id FROM sessions
        WHERE last_seen_at < %(day)s::date::timestamp AT TIME ZONE 'UTC'
        ORDER BY last_seen_at LIMIT %(most)s
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) AS deleted FROM gone
