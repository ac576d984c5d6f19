"""The /conversations resource and its items."""

import time

from libs.simulator.api import errors
from libs.simulator.api.create_request import input_items
from libs.simulator.api.pages import page
from libs.simulator.api.turns import add_items, listed
from libs.simulator.exchange import Call
from libs.simulator.state.state import Conversation, State
from libs.simulator.wire import Answer, Json, json_answer


class Conversations:
    """Stores conversations per account."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def create(self, call: Call) -> Answer:
        conversation = Conversation(
            account=call.account.name,
            conversation_id=call.account.mint.new_id("conv"),
            created_at=int(time.time()),
            metadata=call.body.get("metadata") or {},
        )
        self._add(call, conversation)
        forgotten = self._state.conversations.put(
            conversation.conversation_id, conversation
        )
        for gone in forgotten:
            self._state.forget_items(gone.items)
        return json_answer(_shown(conversation))

    async def show(self, call: Call) -> Answer:
        return json_answer(_shown(self._found(call)))

    async def update(self, call: Call) -> Answer:
        conversation = self._found(call)
        conversation.metadata = call.body.get("metadata") or {}
        return json_answer(_shown(conversation))

    async def delete(self, call: Call) -> Answer:
        conversation = self._found(call)
        self._state.conversations.pop(conversation.conversation_id)
        self._state.forget_items(conversation.items)
        return json_answer(
            {
                "id": conversation.conversation_id,
                "object": "conversation.deleted",
                "deleted": True,
            }
        )

    async def list_items(self, call: Call) -> Answer:
        return json_answer(page(list(self._found(call).items.values()), call.query))

    async def add_items(self, call: Call) -> Answer:
        added = self._add(call, self._found(call))
        return json_answer(page(added, {"order": "asc", "limit": "100"}))

    async def show_item(self, call: Call) -> Answer:
        return json_answer(self._item(call, self._found(call)))

    async def delete_item(self, call: Call) -> Answer:
        conversation = self._found(call)
        item_id = self._item(call, conversation)["id"]
        del conversation.items[item_id]
        self._state.forget_items([item_id])
        return json_answer(_shown(conversation))

    def _found(self, call: Call) -> Conversation:
        return self._state.conversation(call.account, call.path["id"])

    def _item(self, call: Call, conversation: Conversation) -> Json:
        item = conversation.items.get(call.path["item"])
        if item is None:
            raise errors.item_not_found(call.path["item"])
        return item

    def _add(self, call: Call, conversation: Conversation) -> list[Json]:
        items = input_items(call.body.get("items"))
        self._state.check_items(call.account, items)
        given = [listed(item, call.account.mint) for item in items]
        return add_items(self._state, conversation, given)


def _shown(conversation: Conversation) -> Json:
    return {
        "id": conversation.conversation_id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": conversation.metadata,
    }
