-- Creates partitions for the days from %(first)s to %(last)s, UTC. Returns how many
-- were created.
SELECT count(*) FILTER (WHERE make_partition_v1(parent, day::date)) AS partitions
FROM unnest(
    ARRAY['requests', 'decisions', 'events', 'payloads', 'minted_ids']
) AS parent,
     generate_series(%(first)s::date, %(last)s::date, interval '1 day') AS day
