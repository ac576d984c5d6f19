"""The router as a whole: its routes, and what keeps it from starting.
tests/integration/router/process uses Redis and a database."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from falcon import inspect, testing

from libs.common.browser_guard import CHECKED
from libs.common.runtime import logs
from libs.common.settings.services import RouterSettings
from libs.common.store.sqlite.store import SqliteStore
from services.router import app as router_app
from services.router.admin.auth.tokens import FixedToken, KeptToken
from services.router.admin.schemas.state import AdminState
from services.router.app import create_app
from tests.support.databases.resp import scripted
from tests.support.values.admin import problem

# The test client does not let the application read `Host` itself.
BY_GATEWAY = {CHECKED: "1"}
VARIABLES = ("PROXY_", "OPENAI_", "DATABASE_URL", "SERVICE_DATABASE_URL")


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PROXY_SQLITE_URL", f"sqlite:///{tmp_path}/proxy.sqlite3")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    # For the whole process, which is pytest's here.
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXY_ROUTER_PORT", "http"),
        ("PROXY_HOST", "http://0.0.0.0"),
        ("PROXY_ADMIN_TOKEN", "short"),
        ("PROXY_CREDENTIAL_VARIABLES", "OPENAI_*"),
        ("https_proxy", "ftp://proxy.example"),
        ("PROXY_HEALTH_CHECK_TIMEOUT_SECONDS", "soon"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,2"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as exit_:
        create_app()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("responses-proxy: ")
    assert variable in line


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, KeptToken),
        ({"PROXY_ADMIN_TOKEN": ""}, KeptToken),
        ({"PROXY_ALLOW_OPEN_ADMIN": "true"}, type(None)),
        ({"PROXY_ADMIN_TOKEN": "correct-horse"}, FixedToken),
        (
            {"PROXY_ADMIN_TOKEN": "correct-horse", "PROXY_ALLOW_OPEN_ADMIN": "true"},
            FixedToken,
        ),
    ],
)
def test_admin_is_open_only_when_that_is_asked_for(
    settings: dict[str, str], kind: type, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "proxy.sqlite3")
    assert type(router_app._token(RouterSettings.read(settings), store)) is kind


@pytest.mark.asyncio
async def test_the_audit_waits_for_a_report_as_long_as_the_reaper() -> None:
    settings = RouterSettings.read({"PROXY_GATEWAY_SILENCE_SECONDS": "30"})
    router = router_app.Router(settings)
    try:
        assert router.auditor.silent_ms == 30_000
    finally:
        await router.stop()


@pytest.mark.asyncio
async def test_without_redis_it_serves_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(lambda _: Exception("LOADING")) as server:
        monkeypatch.setenv("PROXY_REDIS_URL", server.url)
        store = SqliteStore(tmp_path / "proxy.sqlite3")
        await store.migrate()
        await store.close()
        monkeypatch.setenv("PROXY_ALLOW_OPEN_ADMIN", "true")
        async with testing.ASGIConductor(create_app(), BY_GATEWAY) as api:
            assert (await api.simulate_get("/healthz")).status_code == 200
            ready = await api.simulate_get("/readyz")
            assert (ready.status_code, ready.json["status"]) == (503, "unavailable")
            state = AdminState(**(await api.simulate_get("/admin/state")).json)
            assert [resource.id for resource in state.resources] == ["openai-1"]
            assert state.admin == "open"
            assert state.degraded[0].startswith("redis")


PAGES = {"/", "/docs", "/openapi.json", "/favicon.ico"}


def refs(part: Any) -> set[str]:
    """The names of the models that a part of a document refers to."""
    if isinstance(part, dict):
        own = {part["$ref"].rpartition("/")[2]} if "$ref" in part else set()
        return own.union(*map(refs, part.values()))
    if isinstance(part, list):
        return set().union(*map(refs, part))
    return set()


def routes_of(app: router_app.App) -> set[tuple[str, str]]:
    return {
        (re.sub(r":\w+}", "}", route.path), method.method.lower())
        for route in inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal and method.method != "HEAD"
    }


@pytest.mark.asyncio
async def test_openapi_describes_exactly_the_routes_of_the_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROXY_ADMIN_TOKEN", "correct-horse")
    async with scripted(lambda _: Exception("LOADING")) as server:
        monkeypatch.setenv("PROXY_REDIS_URL", server.url)
        app = create_app()
        async with testing.ASGIConductor(app, BY_GATEWAY) as api:
            document = (await api.simulate_get("/openapi.json")).json
            described = {
                (path, method)
                for path, methods in document["paths"].items()
                for method in methods
                if not path.startswith("/v1")  # served by gateways
            }
            assert described == {
                (path, method)
                for path, method in routes_of(app)
                if path not in PAGES
                and not path.startswith(("/dashboard/", "/internal/"))
            }
            assert refs(document) <= set(document["components"]["schemas"])
            for path, method in described:
                operation = document["paths"][path][method]
                assert operation["summary"].endswith((".", "?")), path
                if path.startswith("/admin"):
                    answer = await api.simulate_request(method.upper(), path)
                    assert problem(answer)[:2] == (401, "invalid_admin_token")
