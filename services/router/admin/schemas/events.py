"""Server-sent events."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from libs.common.contracts.catalogue import Frozen
from libs.common.contracts.events import Row
from services.router.admin.schemas.attention import AttentionItem
from services.router.admin.schemas.pages import flag
from services.router.admin.schemas.state import AdminState


class EventsFilter(Frozen):
    """What to send."""

    changes: Annotated[bool, BeforeValidator(flag)] = Field(
        False, description="`true` sends only what is new after the first event."
    )


class WatchedState(AdminState):
    """`/admin/state`, and with `changes=true` these; decisions are then without their
    candidates. An event named `change` has only the members that differ: of resources
    those that differ, of decisions and requests the new ones."""

    requests: tuple[Row, ...] = ()  # the newest stored ones
    attention: tuple[AttentionItem, ...] = ()
