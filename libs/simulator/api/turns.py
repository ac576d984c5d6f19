"""Turns a create request into a response. HTTP and WebSocket share it; nothing is
stored before `commit`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from libs.simulator.api import answers, errors
from libs.simulator.api.answers import Fate
from libs.simulator.api.create_request import Ask, parts
from libs.simulator.state.accounts import Account
from libs.simulator.state.ids import Mint
from libs.simulator.state.state import Conversation, State, Stored
from libs.simulator.state.threads import Thread
from libs.simulator.wire import Json, encode

_NO_MEMORY: Mapping[str, Thread] = {}


@dataclass(frozen=True)
class Turn:
    """A parsed request with its prepared answer."""

    account: Account
    ask: Ask
    response: Json
    # The history including the answer.
    thread: Thread
    conversation: Conversation | None = None

    @property
    def response_id(self) -> str:
        return str(self.response["id"])


class Turns:
    """Prepares turns against the stored state."""

    def __init__(self, state: State, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock

    def prepare(
        self,
        account: Account,
        ask: Ask,
        fate: Fate | None = None,
        memory: Mapping[str, Thread] = _NO_MEMORY,
    ) -> Turn:
        """Prepare the answer, or raise `ApiError`.

        `memory` maps response ids to what the caller's WebSocket remembers. A
        conversation is locked from here until `release`."""
        state, body = self._state, ask.body
        conversation = self._conversation(account, ask)
        thread = self._history(account, ask, conversation, memory)
        state.check_items(account, ask.items)
        state.check_tools(account, body.get("tools"))
        thread = thread.offering(body.get("tools")).extended(ask.items)
        asked = thread.opening(body.get("instructions"))

        items = answers.outputs(ask, asked, account.mint)
        counts = answers.usage(asked, items, state.cached_tokens(account, ask, asked))
        response_id = account.mint.new_id("resp", stored=ask.store)
        response = answers.response_object(
            ask, response_id, items, counts, self._clock()
        )
        response = answers.spoiled(response, fate)
        state.warm_cache(account, ask, response_id, asked.tokens)
        if conversation:
            conversation.busy = True
        thread = thread.extended(response["output"])
        return Turn(account, ask, response, thread, conversation)

    def count(self, account: Account, ask: Ask) -> int:
        """The number of input tokens this request would have."""
        conversation = self._conversation(account, ask)
        thread = self._history(account, ask, conversation, _NO_MEMORY)
        self._state.check_items(account, ask.items)
        self._state.check_tools(account, ask.body.get("tools"))
        thread = thread.extended(ask.items)
        return thread.opening(ask.body.get("instructions")).tokens

    def commit(self, turn: Turn, encoded: bytes | None = None) -> None:
        """Store the finished turn where the request asked for it. `encoded` is the
        encoded response, if the caller has it."""
        if turn.conversation:
            self._append(turn, turn.conversation)
        if turn.ask.store:
            self.keep(turn, encoded)

    def keep(self, turn: Turn, encoded: bytes | None = None) -> None:
        """Store the response in its current state; called again when it has changed."""
        before = self._state.response(turn.account, turn.response_id)
        if before:
            inputs, item_ids = before.input_items, before.item_ids
        else:
            shown = [listed(item, turn.account.mint) for item in turn.ask.items]
            inputs, item_ids = encode(shown), _ids(shown)
        item_ids += tuple(i for i in _ids(turn.response["output"]) if i not in item_ids)
        self._state.put_response(
            Stored(
                account=turn.account.name,
                response_id=turn.response_id,
                response=encoded or encode(turn.response),
                input_items=inputs,
                thread=turn.thread,
                item_ids=item_ids,
            )
        )

    def release(self, turn: Turn) -> None:
        """Unlock the conversation."""
        if turn.conversation:
            turn.conversation.busy = False

    def _conversation(self, account: Account, ask: Ask) -> Conversation | None:
        if ask.conversation_id is None:
            return None
        found = self._state.conversation(account, ask.conversation_id)
        if found.busy:
            raise errors.conversation_locked(ask.conversation_id)
        return found

    def _history(
        self,
        account: Account,
        ask: Ask,
        conversation: Conversation | None,
        memory: Mapping[str, Thread],
    ) -> Thread:
        if conversation:
            return Thread().extended(conversation.items.values())
        if ask.previous_id is None:
            return Thread()
        if ask.previous_id in memory:
            return memory[ask.previous_id]
        stored = self._state.response(account, ask.previous_id)
        if stored is None:
            raise errors.previous_response_not_found(ask.previous_id)
        return stored.thread

    def _append(self, turn: Turn, conversation: Conversation) -> None:
        mint = turn.account.mint
        given = [listed(item, mint) for item in turn.ask.items]
        add_items(self._state, conversation, [*given, *turn.response["output"]])


def changed(turn: Turn, response: Json) -> Turn:
    """A copy of the turn with this response."""
    return replace(turn, response=response)


def add_items(
    state: State, conversation: Conversation, items: list[Json]
) -> list[Json]:
    """Append listed items to the conversation; returns them."""
    for item in items:
        conversation.items[item["id"]] = item
    state.keep_items(conversation.account, [item["id"] for item in items])
    return items


def listed(item: Json, mint: Mint) -> Json:
    """An input item as lists show it: with type, id, status and content parts."""
    kind = item.get("type", "message")
    shown = {**item, "type": kind}
    if not isinstance(item.get("id"), str):
        shown["id"] = mint.new_id(_PREFIXES.get(kind, kind.split("_")[0]))
    if kind == "message":
        role = item.get("role", "user")
        shown |= {"role": role, "status": item.get("status", "completed")}
        shown["content"] = [_part(part, role) for part in parts(item)]
    elif kind in _PREFIXES:
        shown.setdefault("status", "completed")
    return shown


_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
}


def _part(part: Json, role: Any) -> Json:
    if role == "assistant" and part.get("type") == "input_text":
        return {"type": "output_text", "text": part["text"], "annotations": []}
    return part


def _ids(items: list[Json]) -> tuple[str, ...]:
    return tuple(item["id"] for item in items)
