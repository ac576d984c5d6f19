"""Which shards use a database, and whether two Redis servers have one namespace."""

from collections.abc import Iterator, Sequence

from libs.cli.checks.finding import Finding

SINCE = 21  # version of the schema
# Of the last minute: the namespaces, and how many of their instances of Redis were in
# use at the same time as another one.
READ = """
SELECT name, count(*) FILTER (WHERE EXISTS (
    SELECT FROM shards AS other
    WHERE other.name = shards.name AND other.instance <> shards.instance
        -- Later by more than clocks of routers differ: Redis was not just emptied.
        AND other.seen_at > shards.since + interval '10 seconds'
        AND shards.seen_at > other.since + interval '10 seconds'
        AND other.seen_at > now() - interval '1 minute'
)) AS doubled
FROM shards
WHERE seen_at > now() - interval '1 minute'
GROUP BY name
ORDER BY name
"""


def shards(
    place: str, rows: Sequence[tuple[str, int]], namespace: str
) -> Iterator[Finding]:
    """`rows`: what `READ` finds."""
    subject = f"database {place}"
    for name, doubled in rows:
        if doubled:
            yield Finding.failed(
                subject,
                f"is used by the routers of several Redis servers that all have the "
                f"namespace {name}",
                "Give each Redis a PROXY_REDIS_NAMESPACE of its own, or each stack a "
                "database of its own",
            )
    names = [name for name, _ in rows]
    if set(names) - {namespace}:
        listed = ", ".join(names)
        state = f"is shared by the shards {listed}; this one is {namespace}"
        yield Finding(subject, state)
