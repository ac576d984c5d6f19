DELETE FROM decisions WHERE created_at < :before
