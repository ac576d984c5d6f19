"""Which node has the slot, by what nodes say; and the guard of function calls."""

import pytest
from redis.crc import key_slot

from libs.common.redis.cluster.layout import (
    Layout,
    Nodes,
    guarded,
    is_up,
    layout_of,
    primaries_of,
    slot_of,
    target_of,
)
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.packing import GAP, Form, packed

ASKED = ("seed", 7000)
SLOT = slot_of(DEFAULT)
GUARD = DEFAULT.guard


@pytest.mark.parametrize("namespace", ["rpx", "a", "b_2"])
def test_all_keys_are_in_the_slot_of_their_tag(namespace: str) -> None:
    keys = Keys(namespace)
    names = keys.catalogue(), keys.guard, keys.tagged_stream
    assert {key_slot(name.encode()) for name in names} == {slot_of(keys)}


def test_namespaces_are_in_slots_of_their_own() -> None:
    assert len({slot_of(Keys(name)) for name in ("rpx", "a", "b", "c")}) == 4


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        *(("{rpx}:events", True), ("a{rpx}b", True), ("{rpx}{x}", True)),
        *(("events", False), ("{}{rpx}", False), ("{{rpx}", False), ("{rpx", False)),
    ],
)
def test_a_name_with_the_tag_is_in_the_slot(name: str, *, inside: bool) -> None:
    assert (DEFAULT.has_tag(name), key_slot(name.encode()) == SLOT) == (inside, inside)


def test_the_owner_is_the_first_member_of_the_range_with_the_slot() -> None:
    ranges = [
        [0, SLOT - 1, [b"a", 1, b"id", []]],
        [SLOT, SLOT, [b"b", 2, b"id"], [b"c", 3, b"id"], [b"d", 4, b"id"]],
        [SLOT + 1, 16383, [b"a", 1, b"id"]],
    ]
    a, b, c, d = ("a", 1), ("b", 2), ("c", 3), ("d", 4)
    assert layout_of(ranges, ASKED, SLOT) == Layout(b, (a, b, c, d), (c, d))


def test_a_slot_that_nobody_has_has_no_owner() -> None:
    assert layout_of([[0, SLOT - 1, [b"a", 1]]], ASKED, SLOT) == Layout(
        None, (("a", 1),)
    )
    assert layout_of([[SLOT, SLOT]], ASKED, SLOT) == Layout(None, ())


@pytest.mark.parametrize("unknown", [None, b"", b"?"])
def test_a_node_without_a_known_address_is_at_the_host_that_was_asked(
    unknown: bytes | None,
) -> None:
    assert layout_of([[0, 16383, [unknown, 7001]]], ASKED, SLOT).owner == ("seed", 7001)


def shard(role: bytes, health: bytes, **more: bytes | int) -> list[object]:
    node = {b"role": role, b"health": health}
    node |= {name.replace("_", "-").encode(): value for name, value in more.items()}  # type: ignore[misc]
    fields = [part for pair in node.items() for part in pair]
    return [b"slots", [], b"nodes", [fields]]


def test_primaries_are_those_that_are_online_with_or_without_slots() -> None:
    shards = [
        shard(b"master", b"online", endpoint=b"a", ip=b"1", port=1, tls_port=11),
        shard(b"replica", b"online", endpoint=b"b", port=2),
        shard(b"master", b"fail", endpoint=b"c", port=3),
        shard(b"master", b"online", endpoint=b"", ip=b"10.0.0.4", tls_port=14),
    ]
    last = ("10.0.0.4", 14)
    assert primaries_of(shards, ASKED, tls=False) == [("a", 1), last]
    assert primaries_of(shards, ASKED, tls=True) == [("a", 11), last]


def test_a_node_that_is_cut_off_is_not_up() -> None:
    assert is_up(b"cluster_enabled:1\r\ncluster_state:ok\r\n")
    assert not is_up(b"cluster_state:fail\r\n")


@pytest.mark.parametrize(
    ("redirect", "target"),
    [
        ("MOVED 430 10.0.0.1:7001", ("10.0.0.1", 7001)),
        ("ASK 430 ::1:7001", ("::1", 7001)),
        ("MOVED 430 :7001", ("seed", 7001)),
    ],
)
def test_a_redirection_names_its_target(redirect: str, target: tuple[str, int]) -> None:
    assert target_of(redirect, ASKED) == target


def test_a_function_gets_one_more_key() -> None:
    call = ("FCALL", "f", 2, "k", "stream", "argument")
    assert guarded(call, GUARD) == ("FCALL", "f", 3, "k", "stream", GUARD, "argument")
    assert guarded(("FCALL", "f", 1, "k"), GUARD) == ("FCALL", "f", 2, "k", GUARD)
    assert guarded(("GET", "k"), GUARD) == ("GET", "k")


def test_so_does_one_whose_call_is_a_form() -> None:
    form = Form(lambda _, number, pieces: b"%d" % number + pieces[0])
    call = form, ("FCALL", "f", 2, "k", "s", GAP), b"x"
    ready = packed(guarded(call, GUARD))
    assert ready.startswith(b"7$5")
    assert packed(guarded(call, GUARD)) == ready
    assert guarded(call, GUARD)[0] is guarded(call, GUARD)[0]
    assert GUARD.encode() in ready
    assert b"$1\r\n3\r\n" in ready


class TestNodes:
    def test_silent_ones_are_asked_last(self) -> None:
        nodes = Nodes([("a", 1), ("b", 2)])
        nodes.silent(("a", 1))
        nodes.silent(("never", 9))
        assert nodes.known == (("b", 2), ("a", 1))

    def test_new_ones_are_added_and_former_ones_forgotten_but_for_the_seeds(
        self,
    ) -> None:
        nodes = Nodes([("a", 1)])
        nodes.learned(Layout(("b", 2), (("b", 2), ("c", 3))))
        assert (nodes.known, nodes.owner) == ((("a", 1), ("b", 2), ("c", 3)), ("b", 2))
        nodes.learned(Layout(("c", 3), (("c", 3),)))
        assert (nodes.known, nodes.owner) == ((("a", 1), ("c", 3)), ("c", 3))

    def test_a_redirection_is_believed_once(self) -> None:
        nodes = Nodes([("a", 1)])
        nodes.told(("b", 2))
        assert nodes.owner == ("b", 2)
        assert [nodes.take_told(), nodes.take_told()] == [("b", 2), None]
