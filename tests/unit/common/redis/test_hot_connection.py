"""The URL decides which kind of connection a gateway has."""

import pytest

from libs.common.redis.cluster.connection import ClusterConnection
from libs.common.redis.hot_connection import hot_connection
from libs.common.redis.shared_connection import SharedConnection


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:1/0", SharedConnection),
        ("redis+cluster://127.0.0.1:1", ClusterConnection),
        ("rediss+cluster://127.0.0.1:1,127.0.0.1:2", ClusterConnection),
    ],
)
async def test_the_scheme_decides(url: str, kind: type[object]) -> None:
    connection = hot_connection(url)
    assert type(connection) is kind
    await connection.close()
