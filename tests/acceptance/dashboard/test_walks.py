"""What operators do on the dashboard, in a real Chromium: from a symptom to its cause,
and changes."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.clients.dashboard import (
    KEYS,
    TOKEN,
    Dashboard,
    tab,
    until_shown,
    visit,
)
from tests.support.processes.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]
IDS = [f"openai-{n + 1}" for n in range(len(KEYS))]
KEY_OF = dict(zip(IDS, KEYS, strict=True))
ASKED = {"path": "/v1/responses"}  # health checks have another path


async def stored(product: Dashboard, request_id: str) -> None:
    """Wait until a request is in SQL."""

    async def found() -> bool:
        page = await product.admin("GET", f"/requests?request_id={request_id}")
        return bool(page["data"])

    await eventually(found, within_s=20)


async def revoke(product: Dashboard, resource: str) -> None:
    """The upstream refuses the key from now on; a health check tells."""
    await product.sim("revoke", key=KEY_OF[resource])
    await product.admin("POST", "/health/check")


async def restore(product: Dashboard, resource: str) -> None:
    await product.sim("restore", key=KEY_OF[resource])
    await product.admin("POST", "/health/check")


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


async def test_mints_and_revokes_a_key(product: Dashboard) -> None:
    async with product.at("#/keys") as page:
        await page.get_by_role("button", name="New team").click()
        await page.get_by_label("Id", exact=True).fill("search")
        await page.get_by_role("button", name="Create", exact=True).click()
        await until_shown(page, "td", "search")
        await page.get_by_role("button", name="Mint a key").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("agent of the walk")
        await dialog.get_by_label("Team").select_option("search")
        await dialog.get_by_label("Requests per minute").fill("60")
        await dialog.get_by_label("Expires").fill("2099-01-02T03:04")
        await dialog.get_by_label("Models").fill("gpt-5.5*, fast")
        await dialog.get_by_role("button", name="Mint").click()
        secret = await page.inner_text("#secret")
        assert secret.startswith("rpx_")
        await dialog.get_by_role("button", name="Close").click()
        await page.get_by_role("link", name="agent of the walk").click()
        await until_shown(page, ".facts", "models: gpt-5.5*, fast")
        # A change has only what differs.
        await page.get_by_role("button", name="Change").click()
        await dialog.get_by_label("Tokens per minute").fill("50000")
        await dialog.get_by_label("Requests per minute").fill("")
        await dialog.get_by_role("button", name="Change").click()
        await until_shown(page, ".facts", "50,000")
        newest = (await product.admin("GET", "/audit?limit=1"))["data"][0]
        assert newest["changes"] == {
            "requests_per_minute": {"before": 60, "after": None},
            "tokens_per_minute": {"before": None, "after": 50000},
        }
        assert secret not in await page.content()
        headers = {"authorization": f"Bearer {secret}"}
        url, body = f"{product.up.url}/responses", {"model": "gpt-5.5", "input": "x"}

        async def answers(status: int) -> bool:
            answer = await product.http.post(url, json=body, headers=headers)
            return answer.status_code == status

        await eventually(lambda: answers(200), within_s=20)
        await page.get_by_role("button", name="Revoke").click()
        await dialog.get_by_role("button", name="Revoke").click()
        await until_shown(page, ".badge", "revoked")
        await eventually(lambda: answers(401), within_s=20)


async def test_the_terms_of_a_budget_are_sent_with_one(product: Dashboard) -> None:
    sent: list[dict[str, Any]] = []

    async def answer(route: Route) -> None:
        if route.request.method != "POST":
            await route.fallback()
            return
        sent.append(json.loads(route.request.post_data or ""))
        minted = {"secret": "rpx_x", "id": "key_x", "name": ""}
        await route.fulfill(status=201, json=minted)

    async with product.at("#/keys") as page:
        await page.route("**/admin/keys", answer)
        dialog = page.get_by_role("dialog")
        for dollars in ("", "2.5"):
            await page.get_by_role("button", name="Mint a key").click()
            await dialog.get_by_label("Dollars").fill(dollars)
            await dialog.get_by_label("Window").select_option("day")
            await dialog.get_by_role("button", name="Mint").click()
            await page.locator("#secret").wait_for()
            await dialog.get_by_role("button", name="Close").click()
    terms = {"budget_window": "day", "budget_time_zone": "UTC", "budget_reserve": False}
    assert sent[0] == {"queue_weight": 1}
    assert sent[1] == {"queue_weight": 1, "budget_usd": 2.5, **terms}


async def test_registers_a_provider(product: Dashboard) -> None:
    async with product.at("#/providers") as page:
        await page.get_by_role("button", name="Add a provider").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Id", exact=True).fill("spare")
        await dialog.get_by_label("Base URL").fill(product.simulator.base_url)
        await dialog.get_by_label("API key").fill("sk-dash-0")
        await dialog.get_by_role("button", name="Test the key").click()
        await until_shown(page, "dialog .said", "the key works")
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await until_shown(page, "#registry-said", "spare serves as spare.")
        await page.get_by_role("button", name="Add an alias").click()
        await dialog.get_by_label("Alias").fill("fast")
        await dialog.get_by_label("Its model").fill("gpt-5.4-mini")
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await until_shown(page, "td", "gpt-5.4-mini of spare")
        await page.get_by_role("button", name="Delete fast").click()
        await dialog.get_by_role("button", name="Delete").click()
        await until_shown(page, "td", "There is no model alias")
        await page.get_by_role("button", name="Delete spare").click()
        await dialog.get_by_role("button", name="Delete").click()
        await until_shown(page, "td", "No provider is registered")


async def test_a_refused_change_says_why_and_keeps_the_form(product: Dashboard) -> None:
    async with product.at("#/providers") as page:
        await page.get_by_role("button", name="Add a provider").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Id", exact=True).fill("no spaces allowed")
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await until_shown(page, "dialog .said", "id:")
        field = dialog.get_by_label("Id", exact=True)
        assert await field.input_value() == "no spaces allowed"
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()


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


async def test_the_form_logs_in_and_the_button_out(product: Dashboard) -> None:
    async with tab(product.browser) as page:
        await page.goto(f"{product.origin}/#/resources")
        await page.get_by_label("Admin token").fill("wrong")
        await page.get_by_role("button", name="Open the dashboard").click()
        await until_shown(page, "#token-why", "not accepted")
        await page.get_by_label("Admin token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await until_shown(page, "h1", "Resources and accounts")  # where it was asked
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Admin token")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_a_viewer_sees_no_forms(product: Dashboard) -> None:
    minted = await product.admin("POST", "/tokens", {"name": "watcher"})
    key = await product.admin("POST", "/keys", {"name": "watched"})
    views = ["#/resources", "#/keys", f"#/keys/{key['id']}", "#/providers", "#/system"]
    for token, some in ((minted["token"], False), (TOKEN, True)):
        async with product.at(token=token) as page:
            for view in views:
                await visit(page, product.origin, view)
                await until_shown(page, "#live", "live")
                await page.locator(".facts, table").first.wait_for()
                changing = page.locator("#view button:not(.sort):not(.more)")
                if some:
                    await expect(changing.first).to_be_visible()
                else:
                    await expect(changing).to_have_count(0)


async def test_names_with_markup_are_text(product: Dashboard) -> None:
    hostile = "<img src=x onerror=document.title='owned'><script>document.title='owned'"
    model = f"{hostile}</script>"
    answer = await product.ask(hostile, model=model)
    request_id = answer.headers["x-proxy-request-id"]
    # An error's message, a key's name and a team's name too.
    message = {"message": hostile, "type": "x", "code": hostile}
    fault = {"status": 400, "body": {"error": message}}
    await product.sim("faults", fault=fault, times=1, match=ASKED)
    refused = await product.ask(hostile)
    assert refused.status_code == 400
    await product.admin("POST", "/keys", {"name": hostile})
    await product.admin("POST", "/teams", {"id": "hostile", "name": hostile})
    for one in (request_id, refused.headers["x-proxy-request-id"]):
        await stored(product, one)
    views = [
        "#/",
        "#/requests",
        "#/requests?show=decisions",
        f"#/requests?session_id={quote(hostile)}",
        f"#/requests/{request_id}",
        f"#/requests/{refused.headers['x-proxy-request-id']}",
        "#/sessions",
        f"#/sessions/{quote(hostile, safe='')}",
        "#/keys",
        "#/system",
        f"#/explain?ask=1&model={quote(hostile)}&session={quote(hostile)}",
        f"#/resources/{quote(hostile, safe='')}",
    ]
    async with product.at() as page:
        for view in views:
            await visit(page, product.origin, view)
            if view not in ("#/", "#/system"):
                await until_shown(page, "#view", "<img src=x")
            assert await page.locator("#view img, #view script").count() == 0
            assert "owned" not in (await page.title()).split(" · ")[1:], view
            assert await page.title() != "owned"


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

        await eventually(updated, within_s=20)
        assert await page.evaluate("getSelection().toString()") == selected
        assert row is not None
        assert await row.evaluate("row => row.isConnected")


async def told(page: Page) -> str:
    """The figures of the table."""
    return json.dumps(await page.locator("tbody td.number").all_inner_texts())
