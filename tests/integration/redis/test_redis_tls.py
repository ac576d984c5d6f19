"""Redis with TLS, as a user with minimal permissions, also through a Sentinel; and the
messages about an untrusted certificate or a wrong password."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from libs.cli.commands import service_command
from libs.cli.operations import doctor
from libs.common.redis.factory import blocking_client
from libs.common.redis.shared_connection import SharedConnection, connect
from tests.support.databases.certificates import Authority, make_authority
from tests.support.databases.tls_redis import Guarded, guarded_cluster, guarded_redis
from tests.support.processes.fleet import PORTS, Plan, running_fleet
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

KEYS = {"sk-a1": "a", "sk-b1": "b"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("stranger"), "a stranger")


@pytest.fixture(scope="module")
def guarded(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    with guarded_redis(tmp_path_factory.mktemp("redis"), authority) as guarded:
        yield guarded


@pytest.fixture(params=["server", "cluster"])
def by_tls(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path
) -> Iterator[str]:
    """The URL of a server, or of a cluster."""
    if request.param == "server":
        yield request.getfixturevalue("guarded").url()
        return
    with guarded_cluster(tmp_path, authority) as url:
        yield url


@pytest.mark.asyncio
async def test_all_services_work_by_tls_with_few_rights(
    by_tls: str, tmp_path: Path
) -> None:
    plan = Plan(KEYS, 1, ("router", "health", "ingest"))
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, by_tls, tmp_path) as fleet,
        httpx.AsyncClient(timeout=60) as http,
    ):
        for _ in range(5):
            body = {"model": "gpt-5.5", "input": "hi"}
            answer = await http.post(f"{fleet.gateways[0].url}/responses", json=body)
            assert answer.status_code == 200

        async def checked() -> bool:
            """On a busy machine the health service may not take it within 3 s: 503."""
            answer = await http.post(f"{fleet.admin}/health/check", json={})
            return answer.status_code == 200

        await eventually(checked)

        async def stored() -> bool:
            ledger = (await http.get(f"{fleet.admin}/ledger")).json()
            return bool(ledger["stored"] == 5 and ledger["balanced"])

        await eventually(stored)
        url = f"{fleet.admin}/requests/{answer.headers['x-proxy-request-id']}"

        async def captured() -> bool:
            return all((await http.get(url)).json()["bodies"].values())

        await eventually(captured)
    said = _logs(tmp_path)
    assert "NOPERM" not in said
    assert "hush" not in said


def _logs(folder: Path) -> str:
    return "".join(log.read_text() for log in folder.glob("*.log"))


@pytest.mark.asyncio
async def test_sentinels_are_asked_by_tls_and_with_a_password_of_their_own(
    guarded: Guarded,
) -> None:
    client = connect(guarded.sentinel_url)
    shared = SharedConnection(client)
    await shared.open()
    assert await shared.call("PING") == b"PONG"
    assert await client.ping()
    await shared.close()

    def ping() -> bool:
        with blocking_client(guarded.sentinel_url, 20, 20) as blocking:
            return bool(blocking.ping())

    assert await asyncio.to_thread(ping)


@pytest.mark.parametrize("service", ["gateway", "router", "health", "ingest"])
@pytest.mark.asyncio
async def test_a_service_says_at_its_start_that_the_certificate_is_not_trusted(
    guarded: Guarded, stranger: Authority, tmp_path: Path, service: str
) -> None:
    environ = {
        **_environ(guarded.url(authority=stranger.file), tmp_path),
        PORTS[service]: str(free_port()),
    }
    log = tmp_path / f"{service}.log"
    process = Process(service_command(service, environ), environ, log)

    async def said() -> bool:
        return "TLS: self-signed certificate" in log.read_text()

    try:
        await eventually(said)
        assert process.alive  # the certificate may be replaced
    finally:
        process.end()
    assert "hush" not in log.read_text()


@pytest.mark.parametrize("case", ["all well", "wrong CA", "wrong password"])
def test_doctor_says_what_is_wrong_in_one_line(
    guarded: Guarded,
    stranger: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    url, said = {
        "all well": (guarded.url(), "ok.*: answers and has functions"),
        "wrong CA": (
            guarded.url(authority=stranger.file),
            r"FAIL.*\(TLS: self-signed certificate.*\).*\?ssl_ca_certs=FILE",
        ),
        "wrong password": (
            guarded.url(user="proxy:nothush"),
            r"FAIL.*\(it refuses the user: invalid username.*Correct USER:PASSWORD",
        ),
    }[case]
    doctor.examine(_environ(url, tmp_path))
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " redis " in line]
    assert re.match(said, line)
    assert "hush" not in line


def _environ(url: str, folder: Path) -> dict[str, str]:
    return {
        "PROXY_REDIS_URL": url,
        "PROXY_DATA_DIR": str(folder),
        "PROXY_SQLITE_URL": f"sqlite:///{folder}/proxy.sqlite3",
        "PROXY_DRAIN_SECONDS": "1",
    }
