"""What walks over the dashboard need of the product."""

import json

from playwright.async_api import Page

from tests.support.clients.dashboard import KEYS, Dashboard
from tests.support.processes.waiting import eventually

IDS = [f"openai-{n + 1}" for n in range(len(KEYS))]
KEY_OF = dict(zip(IDS, KEYS, strict=True))
ASKED = {"path": "/v1/responses"}  # health checks have another path


async def stored(product: Dashboard, request_id: str) -> None:
    """Wait until a request is in SQL."""

    async def found() -> bool:
        page = await product.admin("GET", f"/requests?request_id={request_id}")
        return bool(page["data"])

    await eventually(found)


async def revoke(product: Dashboard, resource: str) -> None:
    """The upstream refuses the key from now on; a health check tells."""
    await product.sim("revoke", key=KEY_OF[resource])
    await product.admin("POST", "/health/check")


async def restore(product: Dashboard, resource: str) -> None:
    await product.sim("restore", key=KEY_OF[resource])
    await product.admin("POST", "/health/check")


async def told(page: Page) -> str:
    """The figures of the table."""
    return json.dumps(await page.locator("tbody td.number").all_inner_texts())
