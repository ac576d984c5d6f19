"""Memory that clients share for large bodies."""

from services.gateway.server.body_memory import Room


def test_no_more_is_held_than_there_is_room() -> None:
    room = Room(10)
    assert room.hold(6)
    assert not room.hold(5)  # nothing is taken
    assert room.hold(4)
    assert (room.held, room.hold(1)) == (10, False)
    room.let_go(4)
    assert (room.held, room.hold(4)) == (6, True)


def test_nothing_always_fits() -> None:
    room = Room(0)
    assert room.hold(0)
    assert not room.hold(1)
