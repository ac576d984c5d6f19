"""`responses-proxy apply`, `keys`, `teams`, `providers`, `models` and `prices` beside a
running proxy, as docs/apply.md documents them."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.databases.valkey import empty
from tests.support.processes.fleet import running_fleet
from tests.support.processes.ports import free_port
from tests.support.processes.processes import BIN, bare_environment
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator
from tests.support.values.blocks import blocks_of, commands
from tests.support.worlds.applied import PAGE, PLAN, TOKEN, UPSTREAM_KEY, Shell, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
SOON_S = 60.0  # only a failure takes that long
SECRET = re.compile(r"\brpx_[\w-]{43}\b")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "checkout").mkdir()
    async with (
        Simulator({"sk-sim-a": "acct-a"}) as ours,
        Simulator({UPSTREAM_KEY: "acct-theirs"}) as theirs,
        running_fleet(PLAN, ours, valkey_server, folder) as fleet,
    ):
        yield World(fleet, theirs.base_url, folder / "checkout")


@pytest.fixture
def shell(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("PROXY_PUBLIC_URL", world.gateway)
    monkeypatch.setenv("PROXY_ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("BETA_KEY", UPSTREAM_KEY)
    return Shell(monkeypatch, capsys)


def resembles(output: str, documented: str) -> bool:
    """Is everything documented in the output, in this order? A line `...` leaves some
    out."""
    parts = [
        re.escape(part).replace("rpx_\\.\\.\\.", SECRET.pattern)
        for part in documented.split("...\n")
    ]
    return re.fullmatch("(?:.*\n)*?".join(parts), output) is not None


async def test_the_documented_commands(world: World, shell: Shell) -> None:
    """They are run in this order; the second `apply` changes nothing."""
    world.put("proxy.yaml", world.file)
    single, whole = (b for b in blocks_of(PAGE) if b.language == "console")
    for command, _ in commands(single):
        await shell.run(command)
    assert await world.rows("keys") == await world.rows("teams") == []

    (dry, shown), (first, wanted), (again, nothing) = commands(whole)
    assert resembles(await shell.run(dry), shown)
    assert await world.rows("keys") == await world.rows("providers") == []
    printed = await shell.run(first)
    assert resembles(printed, wanted), printed
    assert await shell.run(again) == nothing == "nothing to change\n"

    secrets = SECRET.findall(printed)
    prefixes = {row["prefix"] for row in await world.rows("keys")}
    assert {secret[:10] for secret in secrets} == prefixes
    assert len(prefixes) == 2
    assert not any(secret in world.logs() for secret in secrets)
    assert UPSTREAM_KEY not in printed
    await eventually(lambda: answers(world, secrets[0]), SOON_S)


async def answers(world: World, secret: str) -> bool:
    """Does the new key reach the new provider by the new alias?"""
    body = {"model": "slow", "input": "x", "reasoning": {"effort": "low"}}
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(headers=headers, timeout=20) as client:
        answer = await client.post(f"{world.gateway}/v1/responses", json=body)
    assert answer.status_code in {200, 401, 403, 404}, answer.text
    resource = answer.headers.get("x-proxy-resource-id")
    return (answer.status_code, resource) == (200, "acme")


async def test_a_change_and_a_prune(world: World, shell: Shell) -> None:
    world.put("proxy.yaml", world.file)
    await shell.run("responses-proxy apply -f proxy.yaml")
    changed = world.file.replace("    requests_per_minute: 600\n", "")
    world.put("proxy.yaml", changed.replace("weight: 3", "weight: 4"))
    told = json.loads(await shell.run("responses-proxy apply -f proxy.yaml --json"))
    assert [(c["action"], c["name"], list(c["fields"])) for c in told["changes"]] == [
        ("change", "fast", ["targets"]),
        ("change", "search-agent", ["requests_per_minute"]),
    ]
    assert told["changes"][1]["fields"]["requests_per_minute"] == {
        "before": 600,
        "after": None,
    }
    assert not SECRET.search(json.dumps(told))

    world.put("others.yaml", world.others)
    told = json.loads(
        await shell.run("responses-proxy apply -f others.yaml --prune --json")
    )
    assert [(c["action"], c["name"]) for c in told["changes"]] == [
        ("create", "beta"),
        ("create", "more"),
        ("create", "east"),
        ("change", "search-ci"),
        ("create", "paused"),
        ("revoke", "search-agent"),
        ("delete", "search"),
        ("delete", "fast"),
        ("delete", "slow"),
        ("delete", "acme"),
        ("delete", "gpt-5.4"),
    ]
    assert [change for change in told["changes"] if "secret" in change] == [
        told["changes"][4]
    ]
    assert UPSTREAM_KEY not in json.dumps(told) + world.logs()
    assert [row["enabled"] for row in await world.rows("keys")] == [False, False]
    again = "responses-proxy apply -f others.yaml --prune"
    assert await shell.run(again) == "nothing to change\n"
    assert "api_key: sent" in await shell.run(f"{again} --send-keys")
    left = await world.rows("providers")
    configured = [(row["id"], row["api_key_configured"]) for row in left]
    assert configured == [("beta", True), ("more", False), ("east", True)]
    # What the environment configures remains.
    resources = (await _state(world))["resources"]
    assert "openai-1" in {resource["id"] for resource in resources}


async def test_prices(world: World, shell: Shell) -> None:
    """Every change is one row of the audit log, and a repeated run is none."""

    def file(model: str, *prices: str) -> None:
        listed = "".join(f"\n      - {{{price}}}" for price in prices)
        world.put("prices.yaml", f"prices:\n  - model: {model}\n    prices:{listed}\n")

    async def audited() -> list[tuple[str, str]]:
        rows = await world.rows("audit?object_type=price")
        return [(row["action"], row["object_id"]) for row in rows]

    before = await audited()
    always = "input: 1, cached_input: 0.5, output: 2"
    tiers = [f"{always}, service_tier: {tier}" for tier in ("b", "a_b", "ab", "a-b")]
    file("x/y", always, *tiers, f"{always}, reasoning: 3, valid_from: 2026-05-01")
    command = "responses-proxy apply -f prices.yaml"
    dry = await shell.run(f"{command} --dry-run")
    assert dry.startswith("create  price x/y\n        prices: [{")
    assert await audited() == before
    assert (await shell.run(command)).endswith("1 change\n")
    assert await shell.run(command) == "nothing to change\n"
    file("x/y", always)
    assert "-> [{" in await shell.run(command)
    shown = await shell.run("responses-proxy prices show x/y --json")
    assert [price["output"] for price in json.loads(shown)["prices"]] == [2]
    assert await shell.run(command) == "nothing to change\n"
    file("z", always)
    told = json.loads(await shell.run(f"{command} --prune --json"))
    assert [(each["action"], each["name"]) for each in told["changes"]] == [
        ("create", "z"),
        ("delete", "x/y"),
    ]
    assert await shell.run(f"{command} --prune") == "nothing to change\n"
    await shell.run("responses-proxy prices delete z")
    assert sorted(await audited()) == sorted(
        [
            *before,
            *[("change", "x/y")] * 2,
            ("change", "z"),
            ("delete", "x/y"),
            ("delete", "z"),
        ]
    )
    assert await world.rows("prices") == []


async def _state(world: World) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(headers=headers, timeout=20) as client:
        state: dict[str, Any] = (await client.get(f"{world.fleet.admin}/state")).json()
    return state


async def test_tables_and_rows(world: World, shell: Shell) -> None:
    made = await shell.run("responses-proxy keys create name=twin pools=a,b --json")
    first = json.loads(made)
    await shell.run("responses-proxy keys create name=twin")
    listed = await shell.run("responses-proxy keys list")
    heads, *rows = listed.splitlines()
    assert heads.split()[:3] == ["id", "name", "prefix"]
    assert sum(" twin " in row for row in rows) == 2
    refused = await shell.run("responses-proxy keys show twin", 1)
    assert "2 keys have the name 'twin'; give an id: key_" in refused
    world.put("twin.yaml", "keys:\n  - name: twin\n")
    refused = await shell.run("responses-proxy apply -f twin.yaml", 2)
    assert "twin.yaml:2: keys[0].name: the proxy has 2 keys of the name" in refused
    shown = await shell.run(f"responses-proxy keys show {first['id']} --json")
    assert json.loads(shown) == {k: v for k, v in first.items() if k != "secret"}
    await shell.run(f"responses-proxy keys revoke {first['id']}")
    await shell.run("responses-proxy keys revoke twin")
    active = await shell.run("responses-proxy keys list")
    everything = await shell.run("responses-proxy keys list --all")
    assert (active.count(" twin "), everything.count(" twin ")) == (0, 2)
    refused = await shell.run("responses-proxy keys change twin name=x", 1)
    assert "there is no key 'twin'" in refused
    refused = await shell.run("responses-proxy keys create naem=x", 2)
    assert "unknown field 'naem'; did you mean name?" in refused


async def test_a_mistake_changes_nothing(world: World, shell: Shell) -> None:
    before = [await world.rows(kind) for kind in ("keys", "teams", "models")]
    world.put(
        "bad.yaml",
        "keys:\n  - name: new\nteams:\n  - id: x\n    polciy: {}\n"
        "models:\n  - {alias: a, provider_id: bata, upstream_id: x}\n",
    )
    refused = await shell.run("responses-proxy apply -f bad.yaml", 2)
    assert refused == (
        "responses-proxy: bad.yaml:5: teams[0].polciy: unknown field; did you mean "
        "policy?\n"
    )
    # What only the API finds ends it there, and says how far it came.
    world.put(
        "bad.yaml",
        "models: []\nkeys:\n  - name: new\nproviders:\n  - id: meta\n"
        "    provider_type: custom\n    base_url: http://169.254.169.254\n"
        "    credential_ref: env:PROVIDER_ACME\n",
    )
    refused = await shell.run("responses-proxy apply -f bad.yaml", 1)
    assert refused.startswith("responses-proxy: provider meta: ")
    assert "(0 of 2 changes are made; the same command continues)" in refused
    assert before == [await world.rows(kind) for kind in ("keys", "teams", "models")]


async def test_no_access(world: World, shell: Shell) -> None:
    world.put("token", "another-token\n")
    wrong = await shell.run("responses-proxy keys list --token-file token", 2)
    assert wrong.startswith(
        "responses-proxy: --token-file: holds another token than that of "
        f"{world.gateway}. "
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    nobody = await shell.run(f"responses-proxy teams list --url {url}", 1)
    assert nobody.startswith(f"responses-proxy: {url} cannot be reached (")
    assert nobody.count("\n") == 1


async def test_the_installed_program(world: World) -> None:
    """The token is read from a file which the environment names."""
    world.put("right", f"{TOKEN}\n")
    environ = {
        **bare_environment(),
        "PROXY_PORT": world.gateway.rpartition(":")[2],
        "PROXY_ADMIN_TOKEN_FILE": str(world.folder / "right"),
    }

    def printed(*words: str) -> Any:
        done = subprocess.run(
            [BIN / "responses-proxy", *words], input=b"models: []", env=environ,
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        return json.loads(done.stdout)

    told = await asyncio.to_thread(printed, "apply", "-f", "-", "--json")
    assert told == {"dry_run": False, "changes": []}
