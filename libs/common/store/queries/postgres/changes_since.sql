-- What the admin API changed after a change, in the order of commits; always a row, with
-- the newest change.
SELECT newest.number AS newest, changed.object_type
FROM (SELECT coalesce(max(number), 0) AS number FROM audit_log) AS newest
LEFT JOIN LATERAL (
    SELECT DISTINCT object_type FROM audit_log WHERE number > %(seen)s
) AS changed ON true
