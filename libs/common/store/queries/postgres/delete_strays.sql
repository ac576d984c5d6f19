SELECT coalesce(sum(delete_strays_v1(parent, %(day)s, %(most)s)), 0) AS deleted
FROM unnest(
    ARRAY['requests', 'decisions', 'events', 'payloads', 'minted_ids']
) AS parent
