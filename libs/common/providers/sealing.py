"""Encrypts provider keys at rest. SQL and Redis hold only encrypted keys; decryption
needs PROXY_SECRET_ENCRYPTION_KEY."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from libs.common.errors import ProxyError


class Unsealable(ProxyError):
    """PROXY_SECRET_ENCRYPTION_KEY is not set here, or does not contain the key that
    encrypted this credential."""


class Sealer:
    """Encrypts with its first key; decrypts with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._first = Fernet(keys[0]) if keys else None
        self._all = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def able(self) -> bool:
        """Whether there is a key to encrypt with."""
        return self._all is not None

    def seal(self, secret: str) -> str:
        """Encrypt a secret. Raises `Unsealable` if there is no key."""
        if self._all is None:
            raise Unsealable
        return self._all.encrypt(secret.encode()).decode()

    def open(self, token: str) -> str:
        """Decrypt a token. Raises `Unsealable`."""
        try:
            if self._all is not None:
                return self._all.decrypt(token.encode()).decode()
        except InvalidToken:
            pass
        raise Unsealable

    def renewed(self, token: str) -> str:
        """Encrypt the secret of `token` with the first key; return `token` if that key
        encrypted it already. Raises `Unsealable`."""
        if self._first is None or self._all is None:
            raise Unsealable
        try:
            self._first.decrypt(token.encode())
        except InvalidToken:
            return self.seal(self.open(token))
        return token
