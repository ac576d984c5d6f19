-- Nothing if it is there already, or too many wait.
INSERT INTO alerts (id, created_at, body, due_at)
SELECT :id, :at::timestamptz, :body, :at::timestamptz
WHERE (SELECT count(*) FROM alerts WHERE delivered_at IS NULL) < :most
ON CONFLICT (id) DO NOTHING
RETURNING id
