-- A request with several dead letters counts once.
SELECT (SELECT total FROM totals WHERE name = 'requests') AS requests,
       (SELECT count(*) FROM dead_letters) AS dead_letters,
       (SELECT count(DISTINCT coalesce(event_id, id)) FROM dead_letters
        WHERE kind = 'request') AS dead_requests
