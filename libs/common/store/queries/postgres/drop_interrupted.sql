-- Deletes the rows and events of requests that a final outcome replaces. The bounds on
-- created_at exclude the partitions of other days.
WITH gone AS (
    DELETE FROM events
    WHERE id = ANY(%(ids)s::text[]) AND kind = 'request'
      AND created_at BETWEEN %(oldest)s AND %(newest)s
)
DELETE FROM requests
WHERE id = ANY(%(ids)s::text[]) AND outcome = 'interrupted'
  AND created_at BETWEEN %(oldest)s AND %(newest)s
