"""Text for terminals."""

from libs.cli.text import plain, table


def test_control_characters_are_escaped() -> None:
    assert plain("a\x1b[31mé\n") == "a\\x1b[31mé\n"


def test_a_table_is_aligned() -> None:
    lines = table(["id", "name"], [["1", "a\nb"], ["22", ""]])
    assert lines == ["id  name", "1   a\\nb", "22"]
    assert table(["id"], []) == ["id"]
