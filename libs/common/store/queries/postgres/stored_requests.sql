-- Which requests of a JSON array are stored, of those in a window.
SELECT id
FROM requests
WHERE id IN (SELECT jsonb_array_elements_text(%(ids)s::jsonb))
    AND created_at >= %(starts)s::timestamptz AND created_at < %(ends)s::timestamptz
