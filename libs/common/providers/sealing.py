"""Provider keys sealed at rest: what is in SQL and in Redis only a process with
PROXY_SECRET_ENCRYPTION_KEY can read."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from libs.common.errors import ProxyError


class Unsealable(ProxyError):
    """PROXY_SECRET_ENCRYPTION_KEY is not set here, or no longer holds the key that
    sealed this one."""


class Sealer:
    """Seals with the first of its keys, opens with all of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._first = Fernet(keys[0]) if keys else None
        self._all = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def able(self) -> bool:
        """Can it seal at all?"""
        return self._all is not None

    def seal(self, secret: str) -> str:
        """Raises `Unsealable` without keys."""
        if self._all is None:
            raise Unsealable
        return self._all.encrypt(secret.encode()).decode()

    def open(self, token: str) -> str:
        """Raises `Unsealable`."""
        try:
            if self._all is not None:
                return self._all.decrypt(token.encode()).decode()
        except InvalidToken:
            pass
        raise Unsealable

    def renewed(self, token: str) -> str:
        """The same secret sealed with the first key; `token` itself if that sealed it.
        Raises `Unsealable`."""
        if self._first is None or self._all is None:
            raise Unsealable
        try:
            self._first.decrypt(token.encode())
        except InvalidToken:
            return self.seal(self.open(token))
        return token
