"""Containers that are read piece by piece. What comes of whole bodies is in
test_scanner.py."""

from libs.common.bodies.containers import Frame, Pieces
from libs.common.bodies.named_ids import MOST_LOOKED, ItemFacts
from libs.common.bodies.schema import Elements, fields_of
from libs.common.bodies.shapes import Body, Item


def of_items() -> Pieces:
    return Pieces(Elements(Item | str))


def test_a_frame_knows_how_it_ends_and_what_is_in_it() -> None:
    frame = Frame(b"{", fields_of(Body))
    assert frame.closing == b"}"
    assert frame.levels() == {}
    frame.key = "tools"
    assert set(frame.levels()) == {b"["}
    assert Frame(b"[", None).closing == b"]"
    assert Frame(b"[", None).levels() == {}


def test_the_end_of_elements_is_guessed_and_checked() -> None:
    frame = Frame(b"[", None)
    body = b'{"a":"},{"},{"b":1},{"c'
    assert frame.guessed_end(body, 0, len(body)) == body.rindex(b",")
    assert frame.guessed_end(b'{"a":"},{"', 0, 10) == 0
    assert frame.guessed_end(b"   ", 0, 3) == 0


def test_a_large_value_is_put_where_it_belongs() -> None:
    frame = Frame(b"{", fields_of(Body))
    frame.put("nothing")  # of a member that does not matter
    frame.key = "model"
    frame.put("m")
    assert frame.value.model == "m"
    Frame(b"[", None).put("nothing")


def test_items_are_looked_at_newest_first() -> None:
    body = b'{"id":"msg_1"},{"id":"msg_2"},{"id":"msg_3"}'
    pieces, facts = of_items(), ItemFacts()
    pieces.add((0, 14))
    pieces.add((15, 29))
    pieces.add(Item(id="msg_3"))
    for _ in pieces.steps(body, facts):
        pass
    assert facts.ids == ["msg_3", "msg_2", "msg_1"]


def test_no_more_items_are_looked_at_than_allowed() -> None:
    pieces, facts = of_items(), ItemFacts()
    for number in range(MOST_LOOKED + 1):
        pieces.add(Item(id=f"msg_{number}"))
    for _ in pieces.steps(b"", facts):
        pass
    assert facts.overflow
    assert facts.looked == MOST_LOOKED
