"""YAML with lines."""

import pytest

from libs.cli.admin.yaml_file import InvalidYaml, parse


def test_values_and_their_lines() -> None:
    parsed = parse("a: 1\nb:\n  - x: null\n    y: [1.5, no]\n  - '2'\n")
    assert parsed.value == {"a": 1, "b": [{"x": None, "y": [1.5, False]}, "2"]}
    assert parsed.line(("b",)) == 2
    assert parsed.line(("b", 0, "y", 1)) == 4
    assert parsed.line(("b", 1)) == 5
    assert parsed.line(("b", 0, "absent", 7)) == 3  # of what would contain it


def test_a_time_stays_as_it_is_written() -> None:
    parsed = parse("at: 2031-01-31T00:00:00Z\nday: 2031-01-31")
    assert parsed.value == {"at": "2031-01-31T00:00:00Z", "day": "2031-01-31"}


def test_an_anchor_is_used_again() -> None:
    parsed = parse("- &p {models: [a]}\n- *p\n")
    assert parsed.value == [{"models": ["a"]}] * 2


BOMB = "\n".join(
    ["- &a0 [x,x,x,x,x,x,x,x,x]"]
    + [f"- &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("", 1, "the file is empty"),
        ("a: 1\nb: [", 2, "expected the node content, but found '<stream end>'"),
        ("a: 1\n b: 2", 2, "mapping values are not allowed here"),
        ("a: 1\n\na: 2", 3, "'a' is there twice"),
        ("a: 1\n---\nb: 1", 2, "but found another document"),
        ("1: a", 1, "the name of a field is not a string"),
        ("a: 1\nb: \x01", 2, "a character that YAML does not allow"),
        ("- x\n- !!python/name:os.system", 2,
         "the tag tag:yaml.org,2002:python/name:os.system is not supported"),
        ("a: !!int x", 1, "a value that cannot be read"),
        ("- &a [*a]", 1, "is nested too deeply, or too large"),
        (BOMB, 1, "is nested too deeply, or too large"),
        ("[" * 500, 1, "is nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, line: int, cause: str) -> None:
    with pytest.raises(InvalidYaml) as refused:
        parse(text)
    assert (refused.value.line, refused.value.text) == (line, cause)
