"""TLS towards upstreams, over memory instead of a network. Real handshakes over
sockets are in tests/integration/dialing and test_egress.py."""

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import certifi
import pytest

from libs.common.runtime.tls import (
    ResumingContext,
    client_context,
    resuming_context,
    tls_cause,
)
from tests.support.databases.certificates import make_authority

CA = Path(certifi.where())


@pytest.mark.parametrize("make", [client_context, resuming_context])
def test_certificates_and_names_are_verified(
    make: Callable[[Path], ssl.SSLContext],
) -> None:
    context = make(CA)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_certificates_of_a_file_are_trusted_too() -> None:
    assert len(client_context(CA).get_ca_certs()) >= 1


@pytest.mark.parametrize("make", [client_context, resuming_context])
def test_a_file_without_certificates_is_refused(
    make: Callable[[Path], ssl.SSLContext], tmp_path: Path
) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("none")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError is one
            make(path)


class Pair:
    """Both ends of a connection."""

    def __init__(self, context: ResumingContext, server: ssl.SSLContext) -> None:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(to_client, to_server, server_hostname="h")
        self.server = server.wrap_bio(to_server, to_client, server_side=True)

    def shake_hands(self) -> bool:
        """To its end; says whether a session was resumed."""
        for end in (self.client, self.server) * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        # TLS 1.3 sends tickets behind the handshake.
        self.server.write(b"x")
        assert self.client.read() == b"x"
        return bool(self.client.session_reused)


def test_the_session_of_the_last_connection_is_resumed(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    context, server = resuming_context(authority.file), authority.server("h")
    resumed = [Pair(context, server).shake_hands() for _ in range(3)]
    assert resumed == [False, True, True]
    context.forget("h")
    context.forget("never seen")
    assert not Pair(context, server).shake_hands()


def test_a_handshake_that_did_not_end_leaves_the_session_before_it(
    tmp_path: Path,
) -> None:
    authority = make_authority(tmp_path)
    context, server = resuming_context(authority.file), authority.server("h")
    Pair(context, server).shake_hands()
    Pair(context, server)
    assert Pair(context, server).shake_hands()


def test_a_name_that_is_not_the_servers_is_refused(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    context, server = resuming_context(authority.file), authority.server("other")
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        Pair(context, server).shake_hands()
    assert "not valid for 'h'" in (tls_cause(error.value) or "")


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
        (
            wrapped(wrapped(VERSION, explicit=True), explicit=False),
            "wrong version number",
        ),
    ],
)
def test_why_tls_failed(error: Exception, cause: str | None) -> None:
    assert tls_cause(error) == cause
