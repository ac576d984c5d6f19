-- The time of the request selects the partition.
SELECT * FROM payloads WHERE request_id = %(id)s AND created_at = %(created_at)s
