"""TLS towards upstreams, over memory instead of a network. Real handshakes over
sockets are in tests/integration/dialing and test_egress.py."""

import ssl
from pathlib import Path

import certifi
import pytest

from libs.common.tls import (
    ResumingContext,
    client_context,
    resuming_context,
    tls_cause,
)

CA = Path(certifi.where())


@pytest.mark.parametrize("make", [client_context, resuming_context])
def test_certificates_and_names_are_verified(make: type[ssl.SSLContext]) -> None:
    context = make(CA)  # type: ignore[arg-type]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_certificates_of_a_file_are_trusted_too() -> None:
    assert len(client_context(CA).get_ca_certs()) >= 1


@pytest.mark.parametrize("make", [client_context, resuming_context])
def test_a_file_without_certificates_is_refused(
    make: type[ssl.SSLContext], tmp_path: Path
) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("none")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError is one
            make(path)  # type: ignore[arg-type]


def handshake(context: ResumingContext) -> None:
    """One that begins: nobody answers."""
    made = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="h")
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()


def test_a_handshake_that_did_not_end_is_not_resumed() -> None:
    context = resuming_context()
    handshake(context)
    handshake(context)
    context.forget("h")
    context.forget("never seen")
    handshake(context)


def failed(kind: type[ssl.SSLError], **told: str | None) -> ssl.SSLError:
    error = kind(1, "[SSL] failed")
    for name, value in told.items():
        setattr(error, name, value)
    return error


def wrapped(cause: BaseException, *, explicit: bool) -> Exception:
    error = OSError("outer")
    if explicit:
        error.__cause__ = cause
    else:
        error.__context__ = cause
    return error


EXPIRED = failed(
    ssl.SSLCertVerificationError, verify_message="certificate has expired."
)
VERSION = failed(ssl.SSLError, reason="WRONG_VERSION_NUMBER")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError("no route"), None),
        (EXPIRED, "certificate has expired"),
        (VERSION, "wrong version number"),
        (failed(ssl.SSLError, reason=None), "no reason given"),
        (wrapped(EXPIRED, explicit=True), "certificate has expired"),
        (wrapped(wrapped(VERSION, explicit=True), explicit=False), "wrong version number"),
    ],
)  # fmt: skip
def test_why_tls_failed(error: Exception, cause: str | None) -> None:
    assert tls_cause(error) == cause
