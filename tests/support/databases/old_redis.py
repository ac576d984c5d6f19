"""A server that says that it is an old Redis, in a thread: enough for its version to be
found."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator

import hiredis


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := self.request.recv(65_536):
                parser.feed(data)
                while isinstance(command := parser.gets(), list):
                    self.request.sendall(self._answer(command[0].upper()))

    def _answer(self, command: bytes) -> bytes:
        if command != b"INFO":
            return b"-ERR unknown command\r\n"
        version = self.server.version  # type: ignore[attr-defined]
        text = f"# Server\r\nredis_version:{version}\r\nrole:master\r\n".encode()
        return b"$%d\r\n%s\r\n" % (len(text), text)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def old_redis(version: str) -> Iterator[str]:
    """Yields the URL of a server with `version`."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.version = version  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()
