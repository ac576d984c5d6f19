-- What the admin API changed after a change, in the order of commits; always a row, with
-- the newest change.
SELECT newest.number AS newest, changed.object_type
FROM (SELECT coalesce(max(rowid), 0) AS number FROM audit_log) AS newest
LEFT JOIN (
    SELECT DISTINCT object_type FROM audit_log WHERE rowid > :seen
) AS changed ON true
