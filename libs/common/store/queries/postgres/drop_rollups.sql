-- Deletes a bounded number of older rows, oldest first.
WITH gone AS (
    DELETE FROM rollups WHERE ctid IN (
        SELECT ctid FROM rollups
        WHERE step_seconds = %(step_seconds)s AND starts_at < %(before)s
        ORDER BY starts_at LIMIT %(most)s
    )
    RETURNING 1
)
SELECT count(*) AS deleted FROM gone
