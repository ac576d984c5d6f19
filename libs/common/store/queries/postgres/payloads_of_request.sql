-- The request's own time leads to its day's partition.
SELECT * FROM payloads WHERE request_id = %(id)s AND created_at = %(created_at)s
