"""Encrypted keys, and how processes decrypt them."""

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from libs.common.contracts.catalogue import Resource
from libs.common.errors import SettingError
from libs.common.providers.credentials import Credentials
from libs.common.providers.destinations import Forbidden
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer, Unsealable

URL = "http://127.0.0.1:1/v1"
RULES = ProviderRules.read({})
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def resource(credential: str, id_: str = "acme") -> Resource:
    return Resource(
        id=id_,
        name=id_,
        pool_id=None,
        account_id=id_,
        weight=1,
        base_url=URL,
        credential=credential,
    )


def test_what_is_sealed_is_opened_again() -> None:
    token = Sealer([NEW]).seal("sk-secret")
    assert "sk-secret" not in token
    assert Sealer([NEW]).open(token) == "sk-secret"


def test_every_key_opens_and_the_first_seals() -> None:
    token = Sealer([OLD]).seal("sk-secret")
    both = Sealer([NEW, OLD])
    assert both.open(token) == "sk-secret"
    renewed = both.renewed(token)
    assert Sealer([NEW]).open(renewed) == "sk-secret"
    assert both.renewed(renewed) == renewed


@pytest.mark.parametrize("keys", [[], [NEW]], ids=["without keys", "with another"])
def test_the_wrong_keys_open_nothing(keys: list[str]) -> None:
    token, sealer = Sealer([OLD]).seal("sk-secret"), Sealer(keys)
    for attempt in (sealer.open, sealer.renewed):
        with pytest.raises(Unsealable, match="PROXY_SECRET_ENCRYPTION_KEY"):
            attempt(token)


def test_nothing_is_sealed_without_keys() -> None:
    assert not Sealer([]).able
    with pytest.raises(Unsealable):
        Sealer([]).seal("sk-secret")


def test_a_credential_is_found_or_opened() -> None:
    sealer = Sealer([NEW])
    credentials = Credentials({"PROVIDER_ACME": "sk-a,sk-b"}, sealer, RULES)
    assert credentials.resolve("env:PROVIDER_ACME#2", URL) == "sk-b"
    assert credentials.resolve(f"sealed:{sealer.seal('sk-c')}", URL) == "sk-c"
    with pytest.raises(SettingError, match="PROVIDER_NOT_SET"):
        credentials.resolve("env:PROVIDER_NOT_SET", URL)


def test_a_key_that_cannot_be_had_is_said_once() -> None:
    credentials = Credentials({}, Sealer([NEW]), RULES)
    lost = f"sealed:{Sealer([OLD]).seal('sk-secret')}"
    with capture_logs() as logs:
        for _ in range(3):
            assert credentials.key_of(resource(lost)) is None
        assert credentials.key_of(resource("env:PROVIDER_NOT_SET")) is None
        assert credentials.key_of(resource(lost, "another")) is None
    assert [entry["resource"] for entry in logs] == ["acme", "acme", "another"]
    assert {entry["action"] for entry in logs} == {"credential_missing"}
    assert "sk-secret" not in repr(logs)
    assert lost.removeprefix("sealed:") not in repr(logs)


def test_a_key_goes_nowhere_else_whatever_the_catalogue_says() -> None:
    """Rows may be older than the rules, or written by hand."""
    environ = {"OPENAI_API_KEY": "sk-ours", "PATH": "sk-path", "PROVIDER_A": "sk-a"}
    sealer = Sealer([NEW])
    credentials = Credentials(environ, sealer, RULES)
    upstream, other = "https://api.openai.com/v1", "https://evil.example/v1"
    assert credentials.resolve("env:OPENAI_API_KEY", upstream) == "sk-ours"
    assert credentials.resolve("env:PROVIDER_A", other) == "sk-a"
    sealed = f"sealed:{sealer.seal('sk-c')}"
    for credential, base_url in (
        ("env:OPENAI_API_KEY", other),
        ("env:OPENAI_API_KEY", "http://api.openai.com/v1"),
        ("env:PATH", upstream),
        ("env:PROXY_ADMIN_TOKEN", upstream),
        ("env:PROVIDER_A", "http://169.254.169.254/v1"),
        (sealed, "http://169.254.169.254/v1"),
        (sealed, "http://x:99999/v1"),
    ):
        with pytest.raises(Forbidden) as refused:
            credentials.resolve(credential, base_url)
        assert "sk-" not in str(refused.value)


def test_a_key_that_may_not_go_there_is_said_once() -> None:
    credentials = Credentials({"PATH": "sk-path"}, Sealer(()), RULES)
    with capture_logs() as logs:
        for _ in range(3):
            assert credentials.key_of(resource("env:PATH")) is None
    (entry,) = logs
    assert entry["action"] == "credential_missing"
    assert "PROXY_CREDENTIAL_VARIABLES" in entry["cause"]
