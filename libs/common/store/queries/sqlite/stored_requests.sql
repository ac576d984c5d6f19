-- Which requests of a JSON array are stored, of those in a window.
SELECT id
FROM requests
WHERE id IN (SELECT value FROM json_each(:ids))
    AND created_at >= :starts AND created_at < :ends
