SELECT first_seen_at, last_seen_at FROM sessions WHERE id = %(session_id)s
