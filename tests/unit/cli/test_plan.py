"""What `up` starts, for a table of environments and observations."""

from pathlib import Path

import pytest

from libs.cli.commands import service_command
from libs.cli.plan import (
    Plan,
    RedisSeen,
    Seen,
    decide,
    with_own_defaults,
    without_password,
)
from libs.common.errors import SettingError
from libs.common.settings.base import CommonSettings

DATA = Path("/data")
SERVICES = {"gateway", "router", "health", "ingest"}


def seen(redis: RedisSeen = RedisSeen.ABSENT) -> Seen:
    return Seen(redis=redis, simulator_port=7002, valkey="/bin/valkey")


def decided(environ: dict[str, str], redis: RedisSeen = RedisSeen.ABSENT) -> Plan:
    return decide(environ, seen(redis), DATA)


def embedded(plan: Plan) -> set[str]:
    return {program.name for program in plan.programs} - SERVICES


def test_with_nothing_configured_everything_is_embedded() -> None:
    plan = decided({})

    assert embedded(plan) == {"redis", "simulator"}
    assert plan.environment["PROXY_REDIS_URL"] == "unix:///data/run/redis.sock"
    assert plan.environment["PROXY_SQLITE_URL"] == "sqlite:////data/proxy.sqlite3"
    assert plan.environment["PROXY_UPSTREAM_BASE_URL"] == "http://127.0.0.1:7002/v1"
    assert dict(plan.choices)["upstream"].startswith(
        "SIMULATED upstream (no OPENAI_API_KEY set)"
    )


@pytest.mark.parametrize("state", RedisSeen)
def test_a_redis_at_the_default_address(state: RedisSeen) -> None:
    plan = decided({}, state)

    used = state in {RedisSeen.EMPTY, RedisSeen.OURS}
    assert ("redis" in embedded(plan)) is not used
    assert (plan.environment["PROXY_REDIS_URL"].endswith(":6379/0")) is used
    assert state.value in dict(plan.choices)["redis"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:hush@h:6379/2", "redis://h:6379/2"),
        (
            "redis+sentinel://u:hush@[::1]:1,b/m/0?sentinel_password=hush",
            "redis+sentinel://[::1]:1,b/m/0",
        ),
        ("unix:///run/r.sock?password=hush", "unix:///run/r.sock"),
    ],
)
def test_a_configured_redis_is_used_unseen(url: str, said: str) -> None:
    plan = decided({"PROXY_REDIS_URL": url}, RedisSeen.EMPTY)

    assert "redis" not in embedded(plan)
    assert "PROXY_REDIS_URL" not in plan.environment
    assert dict(plan.choices)["redis"] == f"{said} (PROXY_REDIS_URL)"


def test_the_default_address_set_where_nothing_answers_is_embedded() -> None:
    environ = {"PROXY_REDIS_URL": "redis://127.0.0.1:6379/0"}

    assert "redis" in embedded(decided(environ, RedisSeen.ABSENT))
    for state in set(RedisSeen) - {RedisSeen.ABSENT}:
        assert "redis" not in embedded(decided(environ, state))


def test_another_address_set_is_used_though_nothing_answers() -> None:
    environ = {"PROXY_REDIS_URL": "redis://127.0.0.1:6379/1"}

    assert "redis" not in embedded(decided(environ, RedisSeen.ABSENT))


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [
        ({}, "SQLite, /data/proxy.sqlite3 (no database URL set)"),
        ({"PROXY_SQLITE_URL": "sqlite:///x"}, "sqlite:///x (PROXY_SQLITE_URL)"),
        (
            {"DATABASE_URL": "postgres://u:hush@h/d"},
            "postgres://h/d (a database URL is set)",
        ),
    ],
)
def test_where_rows_go(environ: dict[str, str], chosen: str) -> None:
    assert dict(decided(environ).choices)["database"] == chosen


@pytest.mark.parametrize(
    ("environ", "simulated"),
    [
        pytest.param({}, True, id="no key"),
        pytest.param({"OPENAI_API_KEY": ""}, True, id="an empty key"),
        pytest.param({"OPENAI_API_KEY_4": "sk-real"}, False, id="a key"),
        pytest.param({"PROXY_SIMULATE": "false"}, False, id="no key, refused"),
        pytest.param(
            {"PROXY_SIMULATE": "true", "OPENAI_API_KEY": "sk-real"}, True, id="asked"
        ),
        pytest.param(
            {"PROXY_UPSTREAM_BASE_URL": "http://h/v1"}, False, id="an own upstream"
        ),
    ],
)
def test_when_the_upstream_is_simulated(
    environ: dict[str, str], simulated: bool
) -> None:
    plan = decided(environ)

    assert ("simulator" in embedded(plan)) is simulated
    assert ("SIMULATED" in dict(plan.choices)["upstream"]) is simulated


def test_no_real_key_reaches_the_simulation() -> None:
    environ = {"PROXY_SIMULATE": "true", "OPENAI_API_KEY_2": "sk-real"}

    merged = {**environ, **decided(environ).environment}

    assert "sk-real" not in merged.values()


def test_simulated_keys_fit_the_lists_by_position() -> None:
    environ = {"OPENAI_RESOURCE_WEIGHTS": "1,2"}
    with pytest.raises(SettingError, match="2 entries for 0 keys"):
        decided(environ)


def test_everything_ends_within_15_seconds() -> None:
    plan = decided({"PROXY_DRAIN_SECONDS": "600"})

    longest: dict[str, int] = {}
    for program in plan.programs:
        longest[program.group] = max(
            longest.get(program.group, 0), program.stop_seconds
        )
    watch_seconds = 1
    assert sum(longest.values()) + watch_seconds < 15


def test_a_shorter_drain_is_respected() -> None:
    plan = decided({"PROXY_DRAIN_SECONDS": "0.5"})

    drains = {
        program.environment["PROXY_DRAIN_SECONDS"]
        for program in plan.programs
        if program.name in SERVICES
    }
    assert drains == {"0.5"}


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:hush@h:1/0", "redis://h:1/0"),
        ("postgresql://u:hush@h/d?password=hush", "postgresql://h/d"),
        ("sqlite:////var/x", "sqlite:////var/x"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
    ],
)
def test_urls_are_printed_without_secrets(url: str, printed: str) -> None:
    assert without_password(url) == printed


@pytest.mark.parametrize(
    ("environ", "what", "said"),
    [
        ({}, "admin", "requires the token in /data/admin-token"),
        (
            {"PROXY_ADMIN_TOKEN": "hush-hush"},
            "admin",
            "requires the token in PROXY_ADMIN_TOKEN",
        ),
        (
            {"PROXY_ALLOW_OPEN_ADMIN": "true"},
            "WARNING",
            "/admin is OPEN to everyone who can reach it (PROXY_ALLOW_OPEN_ADMIN=true)",
        ),
        (
            {"PROXY_ALLOW_OPEN_ADMIN": "true", "PROXY_ADMIN_TOKEN": "hush-hush"},
            "admin",
            "requires the token in PROXY_ADMIN_TOKEN",
        ),
    ],
)
def test_who_gets_into_admin_is_said(
    environ: dict[str, str], what: str, said: str
) -> None:
    assert dict(decided(environ).choices)[what] == said


@pytest.mark.parametrize("unset", [{}, {"PROXY_INTERNAL_HOST": ""}])
def test_only_the_gateway_listens_beyond_loopback(unset: dict[str, str]) -> None:
    environ = with_own_defaults({"PROXY_HOST": "0.0.0.0", **unset})
    settings = CommonSettings.read(environ)
    assert settings.host_of("gateway") == "0.0.0.0"
    for service in ("router", "health", "ingest"):
        assert settings.host_of(service) == "127.0.0.1"
    command = service_command("router", environ)
    assert command[-3] == "127.0.0.1"


def test_the_other_services_listen_where_they_are_told() -> None:
    environ = with_own_defaults({"PROXY_INTERNAL_HOST": "10.0.0.5"})
    assert CommonSettings.read(environ).host_of("ingest") == "10.0.0.5"
