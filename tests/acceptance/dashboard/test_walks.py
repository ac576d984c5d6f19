"""What operators find on the dashboard, in a real Chromium: from symptom to cause."""

import re

import pytest
from playwright.async_api import expect

from tests.support.clients.dashboard import TOKEN, Dashboard, tab, until_shown
from tests.support.clients.walks import ASKED, KEY_OF, restore, revoke, stored, told
from tests.support.processes.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]


async def test_sees_what_is_wrong_first(product: Dashboard) -> None:
    async with product.at("#/") as page:
        await until_shown(page, "#wrong-title", "Nothing is wrong now")
        await revoke(product, "openai-4")
        try:
            await until_shown(page, "#wrong-title", "Wrong now: 1 problem")
            problem = page.locator(".problems li")
            text = await problem.inner_text()
            for words in ("openai-4", "Key refused, for", "To do: Replace the key"):
                assert words in text
            await problem.get_by_role("link", name="openai-4").click()
            await until_shown(page, "h1", "Resource openai-4")
        finally:
            await restore(product, "openai-4")
        await page.go_back()
        await until_shown(page, "#wrong-title", "Nothing is wrong now")


async def test_charts_survive_a_reload(product: Dashboard) -> None:
    answer = await product.ask("charted")
    await stored(product, answer.headers["x-proxy-request-id"])
    async with product.at("#/") as page:
        chart = page.locator("time-chart[label=Requests]")
        for window in ("hour", "day", "week"):
            await page.get_by_role("link", name=window.capitalize()).click()
            for _ in range(2):
                await chart.locator("canvas").wait_for()
                label = await chart.get_attribute("aria-label") or ""
                assert re.match(r"Requests\. requests: \d+ last, [1-9]", label), label
                await page.reload()
            assert f"window={window}" in page.url


async def test_finds_a_failing_key_and_why(product: Dashboard) -> None:
    await revoke(product, "openai-3")
    try:
        async with product.at("#/resources") as page:
            await until_shown(page, "tbody tr", "key refused")
            first = page.locator("tbody tr").first  # sick ones first
            assert "openai-3" in await first.inner_text()
            assert "401" in await first.inner_text()
            await first.get_by_role("link", name="openai-3").click()
            await until_shown(page, ".lead", "The upstream refused its key")
            assert "401 invalid_api_key" in await page.inner_text(".lead")
    finally:
        await restore(product, "openai-3")


async def test_finds_why_a_session_moved(product: Dashboard) -> None:
    answer = await product.ask("mover")
    home = answer.headers["x-proxy-resource-id"]
    await product.sim("revoke", key=KEY_OF[home])
    try:
        moved = await product.ask("mover")
        new = moved.headers["x-proxy-resource-id"]
        assert new != home
        await stored(product, moved.headers["x-proxy-request-id"])
        async with product.at("#/sessions?session_id=mover") as page:
            await page.get_by_role("link", name="mover").click()
            row = page.get_by_role("table", name="Moves").locator("tbody tr")
            await expect(row).to_have_count(1)
            await until_shown(page, "td", "the upstream refused the key")
            cells = await row.locator("td").all_inner_texts()
            assert cells[1:4] == [home, new, "the upstream refused the key"]
            # The request of the move has both attempts, the chosen rows marked.
            await row.get_by_role("link").first.click()
            await until_shown(page, "h3", f"Attempt 2: {new}")
            chosen = page.locator("tr[aria-current] .chosen")
            await expect(chosen).to_have_count(2)
            assert "1795" not in await page.inner_text("#view")  # no Unix times
    finally:
        await restore(product, home)


async def test_finds_the_cause_of_a_slow_request(product: Dashboard) -> None:
    await product.sim("faults", fault={"delay_ms": 700}, times=1, match=ASKED)
    answer = await product.ask("patient")
    assert answer.status_code == 200
    request_id = answer.headers["x-proxy-request-id"]
    await stored(product, request_id)
    async with product.at("#/requests?session_id=patient") as page:
        await page.get_by_role("link", name=f"request {request_id}").click()
        await until_shown(page, "#slowest", "waiting for the upstream's first byte")
        steps = page.get_by_role("table", name="Timeline").locator("tbody tr")
        names = await steps.locator("td:first-child").all_inner_texts()
        assert names[:4] == [
            "Received",
            "Resource chosen",
            "Sent upstream",
            "First byte",
        ]
        assert names[-1] == "Done"
        slow = steps.filter(has_text="First byte")
        assert await slow.get_attribute("aria-current") == "true"
        # What was sent and answered, folded, readable and copyable.
        body = page.get_by_role("region", name="Body of the request")
        await expect(body).to_be_hidden()
        await page.get_by_text("Body of the request").click()
        assert '"input": "Say hello"' in await body.inner_text()
        await expect(page.get_by_role("button", name="Copy").first).to_be_visible()


async def test_filters_and_shares_an_address(product: Dashboard) -> None:
    for session in ("shared-1", "shared-2"):
        answer = await product.ask(session)
    await stored(product, answer.headers["x-proxy-request-id"])
    async with product.at("#/requests") as page:
        await page.get_by_label("Session").fill("shared-1")
        await page.get_by_label("Status").fill("2xx")
        await page.get_by_label("Since").select_option("-1h")
        await page.get_by_label("Outcome").select_option("completed")
        rows = page.get_by_role("table", name="Requests").locator("tbody tr")
        await expect(rows).to_have_count(1)
        address = page.url
        assert "session_id=shared-1" in address
        assert "outcome=completed" in address
        assert "status=2xx" in address
    async with tab(product.browser) as other:
        await other.goto(f"{product.origin}/#token={TOKEN}")
        await other.locator("#view h1").wait_for()
        await other.goto(address)
        rows = other.get_by_role("table", name="Requests").locator("tbody tr")
        await expect(rows).to_have_count(1)
        assert await other.get_by_label("Session").input_value() == "shared-1"
        await other.get_by_role("link", name="Clear").click()
        await expect(rows).not_to_have_count(1)
        await other.go_back()
        await expect(rows).to_have_count(1)


async def test_older_rows_stay_while_new_ones_arrive(product: Dashboard) -> None:
    answers = [await product.ask("long") for _ in range(55)]
    await stored(product, answers[-1].headers["x-proxy-request-id"])
    async with product.at("#/requests?session_id=long") as page:
        rows = page.get_by_role("table", name="Requests").locator("tbody tr")
        await expect(rows).to_have_count(50)
        await page.get_by_role("button", name="Older").click()
        await expect(rows).to_have_count(55)
        oldest = answers[0].headers["x-proxy-request-id"]
        assert oldest in (await rows.last.inner_html())
        await expect(page.get_by_role("button", name="Older")).to_be_hidden()


async def test_explains_where_a_request_would_go(product: Dashboard) -> None:
    async with product.at("#/explain") as page:
        await page.get_by_label("Model").fill("gpt-5.5")
        await page.get_by_role("button", name="Explain").click()
        await until_shown(page, "#answer-title", "To openai-")
        table = page.get_by_role("table", name="Candidates of attempt 1")
        await expect(table.locator(".chosen")).to_have_count(1)
        assert "model=gpt-5.5" in page.url


async def test_selected_text_survives_updates(product: Dashboard) -> None:
    async with product.at("#/resources") as page:
        await until_shown(page, "tbody tr", "openai-1")
        await page.evaluate(
            "getSelection().selectAllChildren(document.querySelector('tbody td a'))"
        )
        selected = await page.evaluate("getSelection().toString()")
        assert selected.startswith("openai-")
        before = await told(page)
        row = await page.query_selector("tbody tr")
        for _ in range(3):
            await product.ask("busy")

        async def updated() -> bool:
            return await told(page) != before

        await eventually(updated)
        assert await page.evaluate("getSelection().toString()") == selected
        assert row is not None
        assert await row.evaluate("row => row.isConnected")
