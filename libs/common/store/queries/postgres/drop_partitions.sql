SELECT sum(drop_partitions_v1(parent, %(day)s)) AS partitions
FROM unnest(
    ARRAY['requests', 'decisions', 'events', 'payloads', 'minted_ids']
) AS parent
