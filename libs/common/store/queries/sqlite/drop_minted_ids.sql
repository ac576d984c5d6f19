DELETE FROM minted_ids WHERE created_at < :before
