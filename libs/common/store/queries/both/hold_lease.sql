-- Returns a row if the holder has the lease now: it was free, or it is renewed.
INSERT INTO leases (role, holder, expires_at)
VALUES (:role, :holder, :expires_at::timestamptz)
ON CONFLICT (role) DO UPDATE SET
    holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at < :now::timestamptz
RETURNING role
