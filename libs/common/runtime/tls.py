"""TLS towards upstreams: which certificates are trusted, sessions that are
resumed, and failures in words."""

import contextlib
import ssl
from pathlib import Path


class ResumingContext(ssl.SSLContext):
    """Offers each host the session of the last connection to it. For connections
    that are all made and read by one thread.

    Neither asyncio nor uvloop takes a session, but both make their TLS objects
    by `wrap_bio`. TLS 1.3 sends tickets after the handshake, so a session is
    asked for when the next connection is made, not when the last one was.
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
        """A handshake failed: the next one begins from nothing."""
        self._latest.pop(host, None)
        self._sessions.pop(host, None)

    def _session(self, host: str | bytes | None) -> ssl.SSLSession | None:
        latest = self._latest.get(host)
        # A handshake under way has no version, and asking it for its session raises:
        # an older session serves as well.
        if latest is not None and latest.version() is not None:
            with contextlib.suppress(ValueError):  # or it cannot be copied
                session = latest.session
                if session is not None and session.has_ticket:
                    self._sessions[host] = session
        return self._sessions.get(host)


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer, verified against the system's certificates (which
    `SSL_CERT_FILE` and `SSL_CERT_DIR` replace) and those of `ca_file`.

    Raises `OSError`, of which `ssl.SSLError` is one, when that file is none.
    """
    return _verifying(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file)


def resuming_context(ca_file: Path | None = None) -> ResumingContext:
    """The same, and sessions are resumed."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    _verifying(context, ca_file)
    return context


def _verifying(context: ssl.SSLContext, ca_file: Path | None) -> ssl.SSLContext:
    # The protocol's own defaults check certificates and names.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_cause(error: BaseException) -> str | None:
    """Why TLS failed, if it is TLS that failed: `error` or what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return str(seen.verify_message).rstrip(".")
        if isinstance(seen, ssl.SSLError):
            return (seen.reason or "no reason given").replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return None
