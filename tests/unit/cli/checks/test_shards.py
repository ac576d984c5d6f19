"""Which shards use a database. tests/integration/store/test_shards_in_sql.py reads them
from one."""

import pytest

from libs.cli.checks.finding import Level
from libs.cli.checks.shards import shards


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], []),
        ([("b", 0)], []),
        ([("b", 0), ("c", 0)], ["is shared by the shards b, c; this one is b"]),
        # This one was never started.
        ([("c", 0)], ["is shared by the shards c; this one is b"]),
    ],
)
def test_other_shards_are_named(rows: list[tuple[str, int]], said: list[str]) -> None:
    found = list(shards("db/proxy", rows, "b"))
    assert [finding.state for finding in found] == said
    assert {finding.level for finding in found} <= {Level.OK}


def test_a_namespace_of_two_redis_servers_is_a_problem() -> None:
    (found,) = shards("db/proxy", [("b", 2)], "b")
    assert found.level is Level.FAILED
    assert "the namespace b" in found.state
