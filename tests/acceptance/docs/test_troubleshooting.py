"""docs/troubleshooting.md quotes the lines of a refused start in their exact words."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.cli.checks import machine, servers
from libs.cli.checks.finding import Context
from libs.cli.checks.schema import too_new
from libs.cli.operations.settings_check import setting_problems
from libs.common.settings.secret_files import with_secret_files
from libs.common.settings.variables import quoted_values, unknown_variables
from tests.support.databases.old_redis import old_redis
from tests.support.databases.valkey import running_valkey

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "troubleshooting.md").read_text()
# The first column of the rows about a refused start.
_, _, ROWS = PAGE.partition("| exit code 2 and ")
CELLS = [
    row.partition(" | ")[0] for row in ROWS.partition("| 503 ")[0].splitlines()[1:]
]
QUOTES = [
    two or one
    for cell in CELLS
    for two, one in re.findall(r"``(.+?)``|`([^`]+)`", cell)
]


def lines(folder: Path) -> Iterator[str]:
    """Every line that the page quotes, from the code that prints it."""
    empty = folder / "empty"
    empty.touch()
    for error in unknown_variables({"PROXY_LOGLEVEL": "x"}):
        yield f"warning: {error}"
    for path in (folder / "none", empty):
        yield from map(str, with_secret_files({"OPENAI_API_KEY_FILE": str(path)})[1])
    both = {"OPENAI_API_KEY": "x", "OPENAI_API_KEY_FILE": str(empty)}
    yield from map(str, with_secret_files(both)[1])
    yield from map(str, quoted_values({"OPENAI_API_KEY": "'x'"}))
    yield from map(str, setting_problems({"PROXY_PORT": "tcp://10.0.0.1:8000"}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = Context({"PROXY_PORT": str(server.getsockname()[1])}, 0.1)
        yield from map(str, machine.port(taken, "gateway"))
    yield str(machine.not_writable(folder, OSError(13, "Permission denied")))
    yield str(machine.in_use(folder))
    with old_redis("6.2.14") as url:
        yield from map(str, servers.redis(Context({"PROXY_REDIS_URL": url}, 1.0)))
    with running_valkey(folder) as url:
        locked = url.replace("redis://", "redis://nobody:hush@")
        yield from map(str, servers.redis(Context({"PROXY_REDIS_URL": locked}, 1.0)))
        single = url.replace("redis://", "redis+cluster://")
        yield from map(str, servers.redis(Context({"PROXY_REDIS_URL": single}, 1.0)))
    elsewhere = {"PROXY_REDIS_URL": single, "PROXY_TELEMETRY_STREAM": "events"}
    yield from map(str, setting_problems(elsewhere))
    shared = {"PROXY_REDIS_NAMESPACE": "b", "PROXY_TELEMETRY_STREAM": "events"}
    yield from map(str, setting_problems(shared))
    option = {"PROXY_DATABASE_URL": "postgresql://h/d?nonsense=1"}
    yield from map(str, servers.database(Context(option, 1.0)))
    newer = too_new("postgresql://h/d", "PROXY_DATABASE_URL", 999, "postgres")
    yield str(newer)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return list(lines(tmp_path_factory.mktemp("lines")))


def test_the_page_quotes_each_of_them() -> None:
    assert len(QUOTES) >= 12


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_line_is_printed(printed: list[str], quote: str) -> None:
    pattern = ".+".join(map(re.escape, quote.split("…")))
    assert any(re.search(pattern, line) for line in printed), printed
