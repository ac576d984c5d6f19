"""`doctor` reports what `up` refuses, in the same words and with the same exit code."""

import fcntl
import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from libs.cli.commands import PYTHON
from tests.support.databases.old_redis import old_redis
from tests.support.databases.valkey import running_valkey
from tests.support.preloaded import programs
from tests.support.processes.processes import ROOT
from tests.support.processes.up import COMMAND, environment, ran

PREFIX = "responses-proxy: "
Condition = Callable[[Path, ExitStack], dict[str, str]]


def secret(folder: Path, text: str) -> str:
    file = folder / "secret"
    file.write_text(text)
    return str(file)


def bad_values(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_PORT": "http", "PROXY_DRAIN_SECONDS": "1e999"}


def quotation_marks(_: Path, __: ExitStack) -> dict[str, str]:
    return {"OPENAI_API_KEY": '"sk-hush"', "PROXY_REDIS_URL": "'redis://:hush@h/0'"}


def unknown_and_strict(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_REQEST_TIMEOUT": "hush", "PROXY_STRICT_ENV": "true"}


def missing_file(folder: Path, _: ExitStack) -> dict[str, str]:
    return {"PROXY_ADMIN_TOKEN_FILE": str(folder / "hush")}


def empty_file(folder: Path, _: ExitStack) -> dict[str, str]:
    return {"OPENAI_API_KEY_1_FILE": secret(folder, "\n")}


def value_and_file(folder: Path, _: ExitStack) -> dict[str, str]:
    file = secret(folder, "hush-hush")
    return {"PROXY_ADMIN_TOKEN": "hush-hush", "PROXY_ADMIN_TOKEN_FILE": file}


def bad_value_in_a_file(folder: Path, _: ExitStack) -> dict[str, str]:
    return {"PROXY_SECRET_ENCRYPTION_KEY_FILE": secret(folder, "hush\n")}


def weights_for_other_keys(_: Path, __: ExitStack) -> dict[str, str]:
    # They fit until `up` replaces the keys by those of the simulated upstream.
    given = {"OPENAI_API_KEYS": "sk-hush-1,sk-hush-2", "PROXY_SIMULATE": "true"}
    return {**given, "OPENAI_RESOURCE_WEIGHTS": "1,2"}


def missing_price_list(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_PRICES_FILE": "/nowhere/prices.toml"}


def directory_that_cannot_be_made(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_DATA_DIR": "/dev/null/data"}


def directory_of_the_kernel(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_DATA_DIR": "/proc/data"}


def directory_that_is_too_long(folder: Path, _: ExitStack) -> dict[str, str]:
    return {"PROXY_DATA_DIR": str(folder / ("x" * 120))}


def directory_with_a_mark(folder: Path, _: ExitStack) -> dict[str, str]:
    return {"PROXY_DATA_DIR": str(folder / "100%")}


def directory_that_is_locked(folder: Path, stack: ExitStack) -> dict[str, str]:
    (folder / "data").mkdir()
    lock = stack.enter_context((folder / "data" / "lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    return {}


def token_that_is_a_directory(folder: Path, _: ExitStack) -> dict[str, str]:
    (folder / "data" / "admin-token").mkdir(parents=True)
    return {"PROXY_ALLOW_OPEN_ADMIN": ""}


def port_that_is_taken(_: Path, stack: ExitStack) -> dict[str, str]:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {"PROXY_HEALTH_PORT": str(server.getsockname()[1])}


def address_of_another_machine(_: Path, __: ExitStack) -> dict[str, str]:
    return {"PROXY_HOST": "203.0.113.1"}


def redis_that_is_too_old(_: Path, stack: ExitStack) -> dict[str, str]:
    return {"PROXY_REDIS_URL": stack.enter_context(old_redis("6.2.14"))}


def redis_with_another_password(folder: Path, stack: ExitStack) -> dict[str, str]:
    url = stack.enter_context(running_valkey(folder))
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "hush")
    return {"PROXY_REDIS_URL": url.replace("redis://", "redis://:nothush@")}


def schema_that_is_too_new(folder: Path, _: ExitStack) -> dict[str, str]:
    file = folder / "new.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE schema_migrations (version INTEGER)")
        connection.execute("INSERT INTO schema_migrations VALUES (999)")
        connection.commit()
    return {"PROXY_SQLITE_URL": f"sqlite:///{file}"}


CONDITIONS: tuple[Condition, ...] = (
    *(bad_values, quotation_marks, unknown_and_strict, missing_file, empty_file),
    *(value_and_file, bad_value_in_a_file, weights_for_other_keys),
    *(missing_price_list, directory_that_cannot_be_made, directory_of_the_kernel),
    *(directory_that_is_too_long, directory_with_a_mark, directory_that_is_locked),
    *(token_that_is_a_directory, port_that_is_taken, address_of_another_machine),
    *(redis_that_is_too_old, redis_with_another_password, schema_that_is_too_new),
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def compared(environ: Mapping[str, str]) -> list[str]:
    """The lines of `up`, after they were found in those of `doctor`."""
    up = ran(environ, "up")
    # What `doctor` executes; other tests run it as users do.
    doctor = programs.completed([*PYTHON, "libs.cli.operations.doctor"], environ, ROOT)
    assert (up.returncode, up.stdout) == (2, ""), up.stderr
    assert (doctor.returncode, doctor.stderr) == (2, ""), doctor.stdout
    lines = [line.removeprefix(PREFIX) for line in up.stderr.splitlines()]
    assert up.stderr == "".join(f"{PREFIX}{line}\n" for line in lines)
    assert {f"FAIL  {line}" for line in lines} <= set(doctor.stdout.splitlines())
    assert "hush" not in up.stderr + doctor.stdout
    return lines


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: c.__name__)
def test_up_and_doctor_say_the_same(
    tmp_path: Path, stack: ExitStack, condition: Condition
) -> None:
    environ = environment(tmp_path) | condition(tmp_path, stack)
    lines = compared(environ)
    several = condition in {bad_values, quotation_marks}
    assert len(lines) == (2 if several else 1)


def test_up_and_doctor_say_the_same_of_a_database_that_is_missing(
    tmp_path: Path, postgres_url: str
) -> None:
    url = f"{postgres_url.rpartition('/')[0]}/nowhere"
    (line,) = compared(environment(tmp_path, DATABASE_URL=url))
    assert line.startswith("DATABASE_URL: names database postgresql://")
    assert "does not exist" in line


def test_a_wrong_value_is_an_object_on_a_line(tmp_path: Path) -> None:
    done = ran(environment(tmp_path, PROXY_PORT="http"), "doctor", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    (refused,) = [each for each in found if each["level"] == "refused"]
    assert refused["subject"] == "PROXY_PORT"
    assert done.returncode == 2
    assert done.stderr == ""


@pytest.mark.parametrize("service", ["gateway", "router", "health", "ingest"])
def test_no_service_starts_with_an_old_redis(
    tmp_path: Path, stack: ExitStack, service: str
) -> None:
    environ = environment(tmp_path) | redis_that_is_too_old(tmp_path, stack)
    done = ran(environ, service)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{PREFIX}PROXY_REDIS_URL: names redis redis://127.0.0.1:")
    assert "(it has version 6.2.14)" in line


def test_a_gateway_without_a_place_for_its_journal(tmp_path: Path) -> None:
    done = ran(environment(tmp_path, PROXY_DATA_DIR="/dev/null/data"), "gateway")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{PREFIX}PROXY_DATA_DIR: is /dev/null/data, which is not w")
    assert done.returncode == 2


@pytest.mark.parametrize("words", [["doctor", "--json"], ["--help"], ["doctor"]])
def test_a_pipe_that_closes_early_leaves_no_traceback(
    tmp_path: Path, words: list[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, *words],
            env=environment(tmp_path), stdout=write, stderr=subprocess.PIPE,
            timeout=60, cwd=ROOT, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.stderr == b""
