"""The helper with which browser tests find what `/admin/attention` says."""

from pathlib import Path

import pytest

from tests.support.clients.attention import page_says, words
from tests.support.clients.chromium import chromium

REDIS = {
    "kind": "degraded",
    "subject": "redis",
    "text": "Redis does not answer.",
    "to_do": "Bring Redis back.",
}
PAGE = (
    "data:text/html,<h3>redis</h3><p>Redis does not</p>\n"
    "<p hidden>{}</p><p>answer.</p><b>{}</b>"
)


def test_words_of_a_subject() -> None:
    items = [REDIS, {**REDIS, "kind": "backlog", "subject": "ingest"}]
    assert words(items, "backlog", "ing") == items[1]
    assert words(items, "degraded", "ingest") is None


@pytest.mark.asyncio
async def test_a_page_says_what_it_shows(tmp_path: Path, has_chromium: str) -> None:
    async with chromium(tmp_path) as browser:
        page = await browser.page()
        await page.visit(PAGE.format("", REDIS["to_do"]))
        assert await page_says(page, REDIS)
        await page.visit(PAGE.format(REDIS["to_do"], ""))  # hidden
        assert not await page_says(page, REDIS)
