-- Deletes a part of the old rows of the log; the newest row stays, whose number counts.
WITH gone AS (
    DELETE FROM shard_spend WHERE number IN (
        SELECT number FROM shard_spend
        WHERE stored_at < %(before)s::timestamptz
            AND number < (SELECT max(number) FROM shard_spend)
        ORDER BY number
        LIMIT %(most)s
    )
    RETURNING 1
)
SELECT count(*) AS deleted FROM gone
