"""What is known of header names, whatever peers send."""

import pytest

from libs.common.name_table import (
    LONGEST_NAME,
    MOST_NAMES,
    MOST_ORDERED,
    NameTable,
)

Entry = tuple[bytes, bytes]


class Maker:
    """Makes entries, and notes of which names."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def __call__(self, name: bytes) -> Entry:
        self.made.append(name)
        return name, name.lower()


def entries(names: list[bytes]) -> list[Entry]:
    return [(name, name.lower()) for name in names]


def placed(
    table: NameTable[Entry], names: list[bytes], order: list[Entry]
) -> list[Entry]:
    return [table.placed(name, order, place) for place, name in enumerate(names)]


def test_an_entry_is_made_once() -> None:
    make = Maker()
    table: NameTable[Entry] = NameTable(make)
    order: list[Entry] = []
    first = table.placed(b"A", order, 0)
    assert first == (b"A", b"a")
    assert table.placed(b"A", order, 1) is first
    assert (order, make.made) == ([first, first], [b"A"])
    assert table.entries == {b"A": first}


def test_each_spelling_has_its_own_entry() -> None:
    table: NameTable[Entry] = NameTable(Maker())
    assert placed(table, [b"A", b"a"], []) == entries([b"A", b"a"])


def test_the_order_is_that_of_the_last_head() -> None:
    table: NameTable[Entry] = NameTable(Maker())
    order: list[Entry] = []
    placed(table, [b"A", b"B", b"C"], order)
    placed(table, [b"B", b"A"], order)
    assert order == entries([b"B", b"A", b"C"])  # what a shorter head leaves is a guess


@pytest.mark.parametrize("surplus", [-1, 0, 1, 2])
def test_heads_with_many_headers_are_ordered_in_part(surplus: int) -> None:
    table: NameTable[Entry] = NameTable(Maker())
    order: list[Entry] = []
    names = [b"A-%d" % number for number in range(MOST_ORDERED + surplus)]
    for head in (names, names, names[:3], names[1:], names[::-1], [b"a-0", *names]):
        assert placed(table, head, order) == entries(head)
        assert len(order) <= MOST_ORDERED
        ordered = min(len(head), MOST_ORDERED)
        assert order[:ordered] == entries(head[:ordered])


@pytest.mark.parametrize(
    ("length", "kept"),
    [(0, True), (LONGEST_NAME, True), (LONGEST_NAME + 1, False), (65_536, False)],
)
def test_long_names_are_not_kept(length: int, *, kept: bool) -> None:
    make = Maker()
    table: NameTable[Entry] = NameTable(make)
    order: list[Entry] = []
    name = b"X" * length
    for _ in range(2):
        assert table.placed(name, order, 0) == (name, name.lower())
    assert order == entries([name])  # one connection keeps it, up to its next head
    assert (name in table.entries, len(make.made)) == (kept, 1 if kept else 2)


def test_more_names_than_a_table_holds_are_not_kept() -> None:
    make = Maker()
    table: NameTable[Entry] = NameTable(make)
    names = [b"X-%d" % number for number in range(MOST_NAMES + 3)]
    for _ in range(2):
        assert [table.placed(name, [], 0) for name in names] == entries(names)
    assert list(table.entries) == names[:MOST_NAMES]
    assert make.made == [*names, *names[MOST_NAMES:]]


def test_a_full_table_is_not_changed() -> None:
    table: NameTable[Entry] = NameTable(Maker())
    for number in range(MOST_NAMES):
        table.learn(b"X-%d" % number)
    assert table.learn(b"Late") == (b"Late", b"late")
    assert b"Late" not in table.entries
    assert len(table.entries) == MOST_NAMES
