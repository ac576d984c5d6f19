"""Keys at rest, and how a process gets at them."""

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from libs.common.contracts import Resource
from libs.common.credentials import Credentials
from libs.common.errors import SettingError
from libs.common.sealing import Sealer, Unsealable

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def resource(credential: str, id_: str = "acme") -> Resource:
    return Resource(
        id=id_,
        name=id_,
        pool_id=None,
        account_id=id_,
        weight=1,
        base_url="http://127.0.0.1:1/v1",
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
    credentials = Credentials({"ACME": "sk-a,sk-b"}, sealer)
    assert credentials.resolve("env:ACME#2") == "sk-b"
    assert credentials.resolve(f"sealed:{sealer.seal('sk-c')}") == "sk-c"
    with pytest.raises(SettingError, match="NOT_SET"):
        credentials.resolve("env:NOT_SET")


def test_a_key_that_cannot_be_had_is_said_once() -> None:
    credentials = Credentials({}, Sealer([NEW]))
    lost = f"sealed:{Sealer([OLD]).seal('sk-secret')}"
    with capture_logs() as logs:
        for _ in range(3):
            assert credentials.key_of(resource(lost)) is None
        assert credentials.key_of(resource("env:NOT_SET")) is None
        assert credentials.key_of(resource(lost, "another")) is None
    assert [entry["resource"] for entry in logs] == ["acme", "acme", "another"]
    assert {entry["action"] for entry in logs} == {"credential_missing"}
    assert "sk-secret" not in repr(logs)
    assert lost.removeprefix("sealed:") not in repr(logs)
