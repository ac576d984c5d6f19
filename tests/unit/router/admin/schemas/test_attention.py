"""What needs an operator, as it is described."""

from typing import get_args

from services.router.admin.schemas.attention import AttentionItem, AttentionList, Kind


def test_the_kinds_are_in_the_order_of_their_weight() -> None:
    kinds = get_args(Kind)
    assert kinds.index("resource_unhealthy") < kinds.index("resource_cooling")
    assert kinds[0] == "degraded"


def test_a_list() -> None:
    item = AttentionItem(
        kind="degraded", subject="redis", since=None, text="Away.", to_do="Start it."
    )
    whole = AttentionList(data=(item,), timestamp="now").model_dump()
    assert whole["data"][0]["link"] is whole["data"][0]["until"] is None
