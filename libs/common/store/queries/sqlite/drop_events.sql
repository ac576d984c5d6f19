DELETE FROM events WHERE created_at < :before
