"""Redis and the database: which problems `up` waits for, and which it refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis as blocking

from libs.cli.checks import servers
from libs.cli.checks.finding import Context, Finding, Level
from libs.cli.plan import RedisSeen
from libs.common.redis.keys import Keys
from services.router.function_library import library
from tests.support.databases.old_redis import old_redis
from tests.support.processes.ports import free_port


def of_redis(url: str) -> Finding:
    (finding,) = servers.redis(Context({"PROXY_REDIS_URL": url}, 1.0))
    return finding


def of_database(**environ: str) -> Finding:
    (finding,) = servers.database(Context(environ, 1.0))
    return finding


@pytest.mark.parametrize("version", ["6.2.14", "5.0.0", "2.8", "", "unstable"])
def test_an_old_redis_is_refused_by_its_version(version: str) -> None:
    with old_redis(version) as url:
        finding = of_redis(url)
        both = list(servers.redis_version(Context({"PROXY_REDIS_URL": url}, 1.0)))
    assert (finding.subject, finding.level) == ("PROXY_REDIS_URL", Level.REFUSED)
    assert f"(it has version {version or 'unknown'})" in finding.state
    assert both == [finding]


def test_a_valkey_is_new_enough(valkey: str) -> None:
    assert of_redis(valkey).level is Level.OK
    assert list(servers.redis_version(Context({"PROXY_REDIS_URL": valkey}, 1.0))) == []


def test_the_embedded_server_stands_in_at_the_default_address_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = (RedisSeen.ABSENT, "")
    monkeypatch.setattr(servers, "look_at_redis", lambda *_: absent)

    default = of_redis("redis://127.0.0.1:6379/0")
    other = of_redis("redis://127.0.0.1:6379/1")

    assert (default.level, other.level) == (Level.OK, Level.FAILED)
    assert "starts an embedded server instead" in default.state


def test_a_password_is_refused_and_not_printed(valkey: str) -> None:
    with blocking.Redis.from_url(valkey) as client:
        client.config_set("requirepass", "hush")
        try:
            wrong = of_redis(valkey.replace("redis://", "redis://:nothush@"))
            none = of_redis(valkey)
        finally:
            client.config_set("requirepass", "")
    for finding in (wrong, none):
        assert (finding.subject, finding.level) == ("PROXY_REDIS_URL", Level.REFUSED)
        assert "hush" not in str(finding)


@pytest.mark.parametrize("host", ["127.0.0.1", "a" * 70])
def test_a_redis_that_does_not_answer_is_waited_for(host: str) -> None:
    url = f"redis://:hush@{host}:{free_port()}/0"
    finding = of_redis(url)
    assert finding.level is Level.FAILED
    assert "hush" not in str(finding)
    assert list(servers.redis_version(Context({"PROXY_REDIS_URL": url}, 1.0))) == []


def test_another_application_is_named(valkey: str) -> None:
    with blocking.Redis.from_url(valkey) as client:
        client.set("celery", "x")
    assert of_redis(valkey).level is Level.FAILED


def test_other_stacks_are_no_problem(valkey: str) -> None:
    other = Keys("b_2")
    with blocking.Redis.from_url(valkey) as client:
        client.set(other.catalogue(), "x")
        client.execute_command("FUNCTION", "LOAD", library(other))
    finding = of_redis(valkey)
    assert finding.level is Level.OK
    assert finding.state.endswith(
        "other stacks of this proxy use it; the keys of this one begin with {rpx}"
    )
    environ = {"PROXY_REDIS_URL": valkey, "PROXY_REDIS_NAMESPACE": "b_2"}
    (ours,) = servers.redis(Context(environ, 1.0))
    assert ours.state.endswith(RedisSeen.OURS.value)


def test_without_a_url_up_starts_its_own() -> None:
    (finding,) = servers.redis(Context({}, 0.5))
    assert finding.level is Level.OK


def test_a_sqlite_file(tmp_path: Path) -> None:
    file = tmp_path / "a b.sqlite3"
    url = f"sqlite:///{file}"
    assert of_database(PROXY_SQLITE_URL=url).state == "will be created"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE x (y)")
    assert of_database(PROXY_SQLITE_URL=url).level is Level.OK
    file.write_text("no database " * 100)
    assert of_database(PROXY_SQLITE_URL=url).level is Level.FAILED
    assert of_database(PROXY_SQLITE_URL=f"sqlite:///{tmp_path}").level is Level.FAILED
