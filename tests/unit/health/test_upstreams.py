"""Which way a check takes."""

import httpx
import pytest

from libs.common.egress import Egress
from libs.common.tls import client_context
from services.health.upstreams import EgressTransport
from tests.support.egress import running_proxy
from tests.support.sockets import relay_to, visited

pytestmark = pytest.mark.asyncio
REFUSAL = b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"


async def test_through_the_proxy_where_one_leads_there() -> None:
    async with running_proxy(REFUSAL) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        egress = Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})
        transport = EgressTransport(egress, client_context())
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.get("http://api.test/v1/models")
            assert answer.status_code == 403
            with pytest.raises(httpx.ProxyError):
                await client.get("https://api.test/v1/models")
            async with visited(relay_to(proxy.port)) as direct:
                await client.get(f"http://127.0.0.1:{direct.port}/v1/models")
                assert direct.come == 1
        assert proxy.lines == [
            "GET http://api.test/v1/models HTTP/1.1",
            "CONNECT api.test:443 HTTP/1.1",
            "GET /v1/models HTTP/1.1",
        ]
