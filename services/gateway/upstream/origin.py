"""Where a connection goes."""

from typing import NamedTuple


class Origin(NamedTuple):  # hashed for each request, which a tuple does in C
    """Scheme, host and port of an upstream or proxy."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
