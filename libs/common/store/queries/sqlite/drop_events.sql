-- Deletes a bounded number of older rows, except those of requests and decisions, which are
-- deleted with theirs.
DELETE FROM events WHERE rowid IN (
    SELECT rowid FROM events WHERE kind = 'health' AND created_at < :before
    UNION ALL
    SELECT rowid FROM events
    WHERE kind <> 'request' AND kind <> 'decision' AND kind <> 'health'
        AND created_at < :before
    LIMIT :most
)
