"""What the dashboard says of a part that is down: the list that its overview shows."""

import json
from typing import Any

import httpx

from tests.support.clients.chromium import Page

Item = dict[str, Any]


async def attention(origin: str) -> list[Item]:
    """What `/admin/attention` lists; `origin` is a gateway's or a router's."""
    async with httpx.AsyncClient(timeout=10) as http:
        answer = await http.get(f"{origin}/admin/attention")
    answer.raise_for_status()
    items: list[Item] = answer.json()["data"]
    return items


def words(items: list[Item], kind: str, subject: str) -> Item | None:
    """What is said of a subject, or of the first one that begins so."""
    return next(
        (
            item
            for item in items
            if item["kind"] == kind and str(item["subject"]).startswith(subject)
        ),
        None,
    )


async def page_says(page: Page, item: Item) -> bool:
    """Whether the page that is open shows the words of an item: with what something is
    wrong, what, and what to do. Call it in `eventually`, as the page is live."""
    shown: bool = await page.run(
        "const text = document.body.innerText.replace(/\\s+/g, ' ');"
        f"return {json.dumps([item['subject'], item['text'], item['to_do']])}"
        ".every(part => text.includes(part.replace(/\\s+/g, ' ')));"
    )
    return shown
