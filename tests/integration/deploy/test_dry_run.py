"""`deploy_service.py --dry-run`: everything is checked, nobody is contacted."""

import pytest
from cryptography.fernet import Fernet

from tests.support.morph.api import KEY
from tests.support.morph.command import COMPLETE, HIDDEN, Done, run

# Ends the process if it makes a socket or resolves a name.
NO_SOCKETS = """
def refuse(event, arguments):
    if event.startswith("socket."):
        import os, traceback
        traceback.print_stack()
        os._exit(99)
sys.addaudithook(refuse)
"""
IMAGE = "MORPH_BASE_IMAGE_ID"
SNAPSHOT = "MORPH_BUILDER_SNAPSHOT_ID"


def dry_run(changes: dict[str, str | None], *arguments: str) -> Done:
    given = {**COMPLETE, **changes}
    set_ = {name: value for name, value in given.items() if value is not None}
    return run(set_, "--dry-run", *arguments, prelude=NO_SOCKETS)


def test_a_complete_configuration_prints_the_plan_without_secrets() -> None:
    done = dry_run({})
    assert (done.code, done.err) == (0, "")
    assert "nobody was contacted" in done.out
    for line in (
        "snapshot snapshot_builder (MORPH_BUILDER_SNAPSHOT_ID)",
        "OPENAI_API_KEY_4=********",
        "PROVIDER_ACME=********",
        "PROXY_ADMIN_TOKEN=********",
        "PROXY_DATABASE_URL=postgresql://db.example.com/proxy",
        "PROXY_MAX_ATTEMPTS=5",
        "PROXY_REQUIRE_KEYS=true (set by the deployment)",
        "https://cloud.morph.so/api, key ******** (MORPH_API_KEY)",
    ):
        assert line in done.out
    assert not [secret for secret in HIDDEN if secret in done.text]


def test_a_base_image_has_a_size() -> None:
    changes = {SNAPSHOT: None, IMAGE: "morphvm-minimal"}
    done = dry_run(changes, "--vcpus", "4")
    assert done.code == 0
    assert "image morphvm-minimal with 4 vCPUs, 4096 MB of memory" in done.out


def test_all_that_is_missing_is_listed_at_once() -> None:
    done = run({}, "--dry-run", prelude=NO_SOCKETS)
    assert done.code == 2
    assert done.out == ""
    assert [line.partition(":")[0] for line in done.err.splitlines()] == [
        *("MORPH_API_KEY", SNAPSHOT, "PROXY_DATABASE_URL", "OPENAI_API_KEY_1")
    ]


def test_all_that_is_wrong_is_listed_at_once() -> None:
    wrong = {
        IMAGE: "morphvm-minimal",
        "MORPH_API_KEY": "two words-7d",
        "MORPH_API_KEY_PROD": None,
        "PROXY_HOST": "127.0.0.1",
        "PROXY_PORT": "80",
        "PROXY_DATA_DIR": "./data",
        "PROXY_DATABASE_URL": "mysql://root:pass-d41d8c@db/proxy",
        "PROXY_ALLOW_OPEN_ADMIN": "true",
        "PROXY_ADMIN_TOKEN": None,
        "PROXY_SECRET_ENCRYPTION_KEY": "not-a-fernet-key",
        "PROXY_MAX_ATTEMPTS": "99",
        "PROXY_LOG_LEVEL": "loud",
        "PROXY_PRICES_FILE": "/nonexistent/prices.toml",
        "PROXY_UPSTREAM_CA_FILE": "/nonexistent/ca.pem",
        "OPENAI_RESOURCE_WEIGHTS": "1,2",
    }
    done = dry_run(wrong)
    assert done.code == 2
    assert done.out == ""
    named = sorted(line.partition(":")[0] for line in done.err.splitlines())
    expected = {*wrong, SNAPSHOT} - {IMAGE, "MORPH_API_KEY_PROD", "PROXY_ADMIN_TOKEN"}
    assert named == sorted(expected)
    for secret in ("pass-d41d8c", "not-a-fernet-key", "two words-7d"):
        assert secret not in done.err


@pytest.mark.parametrize(
    ("keys", "arguments", "expected"),
    [
        ({"MORPH_API_KEY": "k-1"}, (), "stage prod MORPH_API_KEY"),
        ({"MORPH_API_KEY": "k-1"}, ("--stage", "stage"), "stage stage MORPH_API_KEY"),
        ({"MORPH_API_KEY_STAGE": "k-1"}, (), "stage stage MORPH_API_KEY_STAGE"),
        (
            {"MORPH_API_KEY": "k-1", "MORPH_API_KEY_PROD": "k-2"},
            ("--stage", "prod"),
            "stage prod MORPH_API_KEY_PROD",
        ),
        (
            {"MORPH_API_KEY_PROD": "k-1", "MORPH_API_KEY_STAGE": "k-2"},
            ("--stage", "stage"),
            "stage stage MORPH_API_KEY_STAGE",
        ),
        (
            {"MORPH_API_KEY_PROD": "k-1", "MORPH_API_KEY_STAGE": "k-2"},
            (),
            "MORPH_API_KEY_PROD, MORPH_API_KEY_STAGE: are set, and no stage is chosen",
        ),
        (
            {"MORPH_API_KEY": "k-1", "MORPH_API_KEY_STAGE": "k-2"},
            (),
            "MORPH_API_KEY_STAGE, MORPH_API_KEY: are set, and no stage is chosen",
        ),
        (
            {"MORPH_API_KEY_STAGE": "k-1"},
            ("--stage", "prod"),
            "MORPH_API_KEY: is not set. Set it, or MORPH_API_KEY_PROD",
        ),
    ],
)
def test_the_stage_selects_the_key(
    keys: dict[str, str], arguments: tuple[str, ...], expected: str
) -> None:
    none: dict[str, str | None] = {"MORPH_API_KEY": None}
    done = dry_run({**none, **keys}, *arguments)
    if expected.startswith("stage"):
        _, stage, variable = expected.split()
        assert done.code == 0
        assert f"stage {stage}\n" in done.out
        assert f"({variable})" in done.out
    else:
        assert done.code == 2
        assert done.err.startswith(expected)
        assert len(done.err.splitlines()) == 1


def test_what_is_rarely_meant_is_a_warning() -> None:
    changes = {
        "PROXY_REQUIRE_KEYS": "false",
        "PROXY_ADMIN_TOKEN": None,
        "PROXY_REDIS_URL": "redis://127.0.0.1:6379/0",
        "HTTPS_PROXY": "http://user:pass-d41d8c@egress.example.com:3128",
    }
    done = dry_run(changes)
    warnings = [line for line in done.out.splitlines() if line.startswith("warning")]
    assert done.code == 0
    assert [line.split()[1] for line in warnings] == [
        *("PROXY_REQUIRE_KEYS", "PROXY_ADMIN_TOKEN", "PROXY_REDIS_URL", "HTTPS_PROXY")
    ]
    assert "HTTPS_PROXY=http://egress.example.com:3128" in done.out
    assert "pass-d41d8c" not in done.text


def test_destroy_needs_only_the_key_of_morph() -> None:
    done = run({"MORPH_API_KEY": KEY}, "--destroy", "--dry-run", prelude=NO_SOCKETS)
    assert (done.code, done.err) == (0, "")
    assert "every instance of this deployment would be" in done.out
    assert run({}, "--destroy", "--dry-run", prelude=NO_SOCKETS).code == 2


def test_the_address_of_the_api_is_checked() -> None:
    assert (
        "http://127.0.0.1:9/api"
        in dry_run({"MORPH_BASE_URL": "http://127.0.0.1:9/api"}).out
    )
    done = dry_run({"MORPH_BASE_URL": "morph"})
    assert done.code == 2
    assert done.err.startswith("MORPH_BASE_URL: is not an http(s) URL")
    done = dry_run({"MORPH_BASE_URL": "http://192.0.2.1/api"})
    assert done.err.startswith("MORPH_BASE_URL: is not encrypted")


def test_a_second_fernet_key_is_masked_too() -> None:
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    done = dry_run({"PROXY_SECRET_ENCRYPTION_KEY": ",".join(keys)})
    assert done.code == 0
    assert not [key for key in keys if key in done.text]
