-- A request parked twice, in two shapes, is one request for the ledger.
SELECT (SELECT total FROM totals WHERE name = 'requests') AS requests,
       (SELECT count(*) FROM dead_letters) AS dead_letters,
       (SELECT count(DISTINCT coalesce(event_id, id)) FROM dead_letters
        WHERE kind = 'request') AS dead_requests
