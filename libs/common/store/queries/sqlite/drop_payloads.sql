DELETE FROM payloads WHERE created_at < :before
