-- Deletes the rows of requests that a final outcome replaces. The bounds on created_at
-- exclude the partitions of other days.
DELETE FROM requests
WHERE id = ANY(%(ids)s::text[]) AND outcome = 'interrupted'
  AND created_at BETWEEN %(oldest)s AND %(newest)s
