"""What operators change on the dashboard, in a real Chromium, and who may."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Route, expect

from tests.support.clients.dashboard import TOKEN, Dashboard, tab, until_shown, visit
from tests.support.clients.walks import ASKED, stored
from tests.support.processes.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]


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
        url, body = f"{product.origin}/v1/responses", {"model": "gpt-5.5", "input": "x"}

        async def answers(status: int) -> bool:
            answer = await product.http.post(url, json=body, headers=headers)
            return answer.status_code == status

        await eventually(lambda: answers(200))
        await page.get_by_role("button", name="Revoke").click()
        await dialog.get_by_role("button", name="Revoke").click()
        await until_shown(page, ".badge", "revoked")
        await eventually(lambda: answers(401))


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
