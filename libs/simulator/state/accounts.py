"""Finds the account of a request."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from libs.simulator.api import errors
from libs.simulator.state.ids import Mint


@dataclass(frozen=True)
class Account:
    """One organization with its only project."""

    name: str

    @property
    def project(self) -> str:
        return f"proj_{self.name}"

    @property
    def mint(self) -> Mint:
        return Mint(self.name)


class Accounts:
    """The keys the service knows."""

    def __init__(
        self, keys: Mapping[str, str], *, any_key: bool = False, named: bool = True
    ) -> None:
        # Whether answers name the account.
        self.named = named
        self._accounts = {key: Account(name) for key, name in keys.items()}
        self._any_key = any_key
        self._revoked: set[str] = set()

    @property
    def revoked(self) -> list[str]:
        return sorted(self._revoked)

    def revoke(self, key: str) -> None:
        """From now on refuse the key like an unknown one."""
        self._revoked.add(key)

    def restore(self, key: str) -> None:
        self._revoked.discard(key)

    def of(self, key: str) -> Account:
        """The account of a key; raises the error of an incorrect key."""
        if key in self._revoked:
            raise errors.wrong_key(key)
        known = self._accounts.get(key)
        if known:
            return known
        if not key:
            raise errors.no_key()
        if not self._any_key:
            raise errors.wrong_key(key)
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        return Account(f"acct-{digest}")

    def admit(self, key: str, headers: Mapping[str, str]) -> Account:
        """The account of a request; its selector headers must match the key."""
        account = self.of(key)
        if headers.get("openai-organization", account.name) != account.name:
            raise errors.wrong_selector("organization")
        if headers.get("openai-project", account.project) != account.project:
            raise errors.wrong_selector("project")
        return account
