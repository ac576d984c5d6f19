"""Server-sent events, as they are described."""

import pytest

from services.router.admin.schemas.events import EventsFilter, WatchedState
from services.router.admin.schemas.state import AdminState


@pytest.mark.parametrize(
    ("given", "changes"), [({}, False), ({"changes": "true"}, True)]
)
def test_changes_are_asked_for(given: dict[str, str], changes: bool) -> None:
    assert EventsFilter.model_validate(given).changes is changes


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="give true or false"):
        EventsFilter.model_validate({"changes": "yes"})


def test_a_state_is_one_of_admin_state_with_more() -> None:
    more = set(WatchedState.model_fields) - set(AdminState.model_fields)
    assert more == {"requests", "attention"}
