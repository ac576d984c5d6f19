"""Resolving a credential to its key, and the messages if there is none."""

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from libs.common.errors import SettingError
from libs.common.providers.credentials import SEALED, Credentials
from libs.common.providers.destinations import Forbidden
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer, Unsealable
from tests.support.values.catalogues import made_resource

SEALER = Sealer([Fernet.generate_key().decode()])
SECRET = "sk-secret"
TOKEN = SEALED + SEALER.seal(SECRET)
RULES = ProviderRules.read({"PROXY_CREDENTIAL_VARIABLES": "KEY,KEYS,GONE,A,B"})
ACME = "https://acme.example/v1"


def credentials(sealer: Sealer = SEALER, **environ: str) -> Credentials:
    return Credentials(environ, sealer, RULES)


@pytest.mark.parametrize(
    ("credential", "key"),
    [("env:KEY", "sk-one"), ("env:KEYS#2", "sk-two"), (TOKEN, SECRET)],
)
def test_a_key_is_in_the_environment_or_sealed(credential: str, key: str) -> None:
    known = credentials(KEY="sk-one", KEYS="sk-1, sk-two")
    assert known.resolve(credential, ACME) == key


def test_what_cannot_be_resolved_says_so_without_the_key() -> None:
    with pytest.raises(SettingError, match="GONE"):
        credentials().resolve("env:GONE", ACME)
    with pytest.raises(Unsealable) as error:
        credentials(Sealer(())).resolve(TOKEN, ACME)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    ("credential", "base_url"),
    [
        ("env:OTHER", ACME),
        ("env:OPENAI_API_KEY", ACME),
        ("env:KEY", "http://169.254.169.254/v1"),
        (TOKEN, "http://169.254.169.254/v1"),
    ],
)
def test_a_key_goes_only_where_the_rules_let_it(credential: str, base_url: str) -> None:
    """Rows may be older than the rules."""
    known = credentials(KEY=SECRET, OTHER=SECRET, OPENAI_API_KEY=SECRET)
    with pytest.raises(Forbidden) as error:
        known.resolve(credential, base_url)
    assert SECRET not in str(error.value)
    resource = made_resource(credential=credential, base_url=base_url)
    assert known.key_of(resource) is None


def test_a_missing_key_is_said_once_for_each_credential() -> None:
    known = credentials()
    one, moved = made_resource(credential="env:A"), made_resource(credential="env:B")
    with capture_logs() as logs:
        assert [known.key_of(r) for r in (one, one, moved, moved)] == [None] * 4
    assert [log["action"] for log in logs] == ["credential_missing"] * 2
    assert {log["resource"] for log in logs} == {"openai-1"}


def test_a_key_that_came_and_went_is_said_again() -> None:
    environ = {"A": "sk-a"}
    known = Credentials(environ, SEALER, RULES)
    resource = made_resource(credential="env:A")
    with capture_logs() as logs:
        assert known.key_of(resource) == "sk-a"
        for _ in range(2):
            del environ["A"]
            assert known.key_of(resource) is None
            environ["A"] = "sk-a"
            assert known.key_of(resource) == "sk-a"
    assert len(logs) == 2
    assert "sk-a" not in repr(logs)
