"""What the simulated accounts have stored: responses, conversations, files, other
objects, items, prompt caches. Every lookup is limited to the caller's account."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from libs.simulator.api import errors
from libs.simulator.api.create_request import Ask, bound_ids, file_ids
from libs.simulator.settings import Settings
from libs.simulator.state.accounts import Account
from libs.simulator.state.ids import account_tag, origin, seal_tag
from libs.simulator.state.shelf import Shelf
from libs.simulator.state.threads import Thread
from libs.simulator.wire import Json

_MAX_ITEMS = 500_000
_MAX_CONVERSATIONS = 10_000
_MAX_FILES = 1_000
_MAX_OBJECTS = 10_000
_MAX_CACHES = 50_000


@dataclass(frozen=True)
class Stored:
    """A stored response. Encoded, to be small and cheap for the garbage collector."""

    account: str
    response_id: str
    response: bytes
    input_items: bytes
    thread: Thread
    item_ids: tuple[str, ...]


@dataclass
class Conversation:
    """A conversation and its items, oldest first."""

    account: str
    conversation_id: str
    created_at: int
    metadata: Json
    items: dict[str, Json] = field(default_factory=dict)
    # Locked: a response is being generated for it.
    busy: bool = False


@dataclass(frozen=True)
class StoredFile:
    account: str
    about: Json
    content: bytes


@dataclass(frozen=True)
class StoredObject:
    """A vector store, container or batch; `members` are a store's files."""

    account: str
    about: Json
    members: dict[str, Json] = field(default_factory=dict)


class State:
    """The storage of all accounts."""

    def __init__(self, settings: Settings) -> None:
        self._responses: Shelf[Stored] = Shelf(
            settings.max_responses, settings.max_response_bytes
        )
        # item id -> account
        self._items: Shelf[str] = Shelf(_MAX_ITEMS)
        self.conversations: Shelf[Conversation] = Shelf(_MAX_CONVERSATIONS)
        self.files: Shelf[StoredFile] = Shelf(_MAX_FILES, 64 * 1024 * 1024)
        self.objects: Shelf[StoredObject] = Shelf(_MAX_OBJECTS)
        self._caches: Shelf[int] = Shelf(_MAX_CACHES)

    def __len__(self) -> int:
        return len(self._responses)

    def response(self, account: Account, response_id: str) -> Stored | None:
        stored = self._responses.get(response_id)
        return stored if stored and stored.account == account.name else None

    def put_response(self, stored: Stored) -> None:
        weight = len(stored.response) + len(stored.input_items)
        forgotten = self._responses.put(stored.response_id, stored, weight)
        for gone in forgotten:
            self.forget_items(gone.item_ids)
        self.keep_items(stored.account, stored.item_ids)

    def delete_response(self, account: Account, response_id: str) -> None:
        stored = self.response(account, response_id)
        if stored is None:
            raise errors.response_not_found(response_id)
        self._responses.pop(response_id)
        self.forget_items(stored.item_ids)

    def keep_items(self, account: str, item_ids: Iterable[str]) -> None:
        for item_id in item_ids:
            self._items.put(item_id, account)

    def forget_items(self, item_ids: Iterable[str]) -> None:
        for item_id in item_ids:
            self._items.pop(item_id)

    def conversation(self, account: Account, conversation_id: str) -> Conversation:
        found = self.conversations.get(conversation_id)
        if found is None or found.account != account.name:
            raise errors.conversation_not_found(conversation_id)
        return found

    def file(self, account: Account, file_id: str) -> StoredFile:
        found = self.files.get(file_id)
        if found is None or found.account != account.name:
            raise errors.file_not_found(file_id)
        return found

    def stored_object(self, account: Account, object_id: str) -> StoredObject:
        found = self.objects.get(object_id)
        if found is None or found.account != account.name:
            raise errors.object_not_found(object_id)
        return found

    def check_tools(self, account: Account, tools: Any) -> None:
        """Refuse tools that use another account's stores or containers."""
        for bound_id in bound_ids(tools):
            if bound_id.startswith("file-"):
                self.file(account, bound_id)
            else:
                self.stored_object(account, bound_id)

    def check_items(self, account: Account, items: Iterable[Json]) -> None:
        """Refuse items that belong to another account or do not exist."""
        for item in items:
            self._check_seal(account, item)
            self._check_id(account, item)
            self._check_files(account, item)

    def _check_seal(self, account: Account, item: Json) -> None:
        sealed = item.get("encrypted_content")
        if not isinstance(sealed, str):
            return
        tag = seal_tag(sealed)
        if tag is None:
            raise errors.broken_seal(str(item.get("id")))
        if tag != account_tag(account.name):
            raise errors.foreign_seal(str(item.get("id")))

    def _check_id(self, account: Account, item: Json) -> None:
        item_id = item.get("id")
        if not isinstance(item_id, str) or self._items.get(item_id) == account.name:
            return
        minted = origin(item_id)
        foreign = minted is not None and minted.tag != account_tag(account.name)
        # Items of `store: false` answers are sent back whole, with ids that are not
        # stored. Only an id that another account has stored is refused.
        looked_up = foreign and minted is not None and minted.stored
        if looked_up or _is_bare(item, minted is not None):
            raise errors.item_not_found(item_id)

    def _check_files(self, account: Account, item: Json) -> None:
        for file_id in file_ids(item):
            self.file(account, file_id)

    def cached_tokens(self, account: Account, ask: Ask, thread: Thread) -> int:
        """How many input tokens the prompt cache holds; adds the input to the cache."""
        before = 0
        for name in _cache_keys(account, ask):
            before = max(before, self._caches.get(name) or 0)
            self._caches.put(name, thread.tokens)
        return min(before, thread.tokens)

    def warm_cache(self, account: Account, ask: Ask, response_id: str, n: int) -> None:
        """Add a history to the cache, for a continuation of this response."""
        self._caches.put(_cache_key(account, ask.model, response_id), n)


def _is_bare(item: Json, minted: bool) -> bool:
    """An item with nothing but an id must be found in storage."""
    kind = item.get("type", "item_reference")
    if kind == "item_reference" and "content" not in item:
        return True
    return kind == "reasoning" and minted and not item.get("encrypted_content")


def _cache_keys(account: Account, ask: Ask) -> list[str]:
    hints = (ask.body.get("prompt_cache_key"), ask.previous_id, ask.conversation_id)
    return [_cache_key(account, ask.model, hint) for hint in hints if hint]


def _cache_key(account: Account, model: str, hint: object) -> str:
    return f"{account.name}\n{model}\n{hint}"
