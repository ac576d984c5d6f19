"""TLS to upstreams: trusted certificates, session resumption, error descriptions."""

import contextlib
import ssl
from pathlib import Path


class ResumingContext(ssl.SSLContext):
    """Resumes the session of the last connection to each host. Not thread-safe.

    Neither asyncio nor uvloop accepts a session, but both create their TLS objects
    with `wrap_bio`. TLS 1.3 sends tickets after the handshake, so the session of a
    connection is read when the next one is made.
    """

    def __init__(self, _protocol: int) -> None:
        super().__init__()
        self._latest: dict[str | bytes | None, ssl.SSLObject] = {}
        self._sessions: dict[str | bytes | None, ssl.SSLSession] = {}

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(
            incoming,
            outgoing,
            server_side,
            server_hostname,
            session or self._session(server_hostname),
        )
        self._latest[server_hostname] = made
        return made

    def forget(self, host: str) -> None:
        """Discard the session of `host` after a failed handshake."""
        self._latest.pop(host, None)
        self._sessions.pop(host, None)

    def _session(self, host: str | bytes | None) -> ssl.SSLSession | None:
        latest = self._latest.get(host)
        # During a handshake the version is None, and reading the session raises. An
        # older session works as well.
        if latest is not None and latest.version() is not None:
            with contextlib.suppress(ValueError):  # the session cannot be copied
                session = latest.session
                if session is not None and session.has_ticket:
                    self._sessions[host] = session
        return self._sessions.get(host)


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """A context for TLS 1.2 or newer that trusts the system's certificates (which
    `SSL_CERT_FILE` and `SSL_CERT_DIR` replace) and those of `ca_file`.

    Raises `OSError` (`ssl.SSLError` included) if `ca_file` is unreadable or invalid.
    """
    return _verifying(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file)


def resuming_context(ca_file: Path | None = None) -> ResumingContext:
    """The same, with session resumption."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    _verifying(context, ca_file)
    return context


def _verifying(context: ssl.SSLContext, ca_file: Path | None) -> ssl.SSLContext:
    # PROTOCOL_TLS_CLIENT checks certificates and host names by default.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_cause(error: BaseException) -> str | None:
    """The reason of a TLS failure in the cause chain of `error`, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return str(seen.verify_message).rstrip(".")
        if isinstance(seen, ssl.SSLError):
            return (seen.reason or "no reason given").replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return None
