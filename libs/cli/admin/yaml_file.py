"""YAML as plain values, with the line of each. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from libs.cli.admin.schema import Path

MOST_NODES = 200_000  # also a bound for aliases of aliases
DEEPEST = 20

_TAG = "tag:yaml.org,2002:"
# A timestamp stays the text that was written: the API reads it.
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null"))
_TIMESTAMP = f"{_TAG}timestamp"


class InvalidYaml(Exception):
    """`line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        self.line, self.text = line, text
        super().__init__(f"line {line}: {text}")


@dataclass(frozen=True)
class Parsed:
    """A document, and the line of each of its values by path."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest one that contains it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str) -> Parsed:
    """Read one document. Raises `InvalidYaml`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = error.problem or error.context or "is not YAML"
        raise InvalidYaml(mark.line + 1 if mark else 1, text) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidYaml(line, "a character that YAML does not allow") from None
    except RecursionError:
        raise InvalidYaml(1, "is nested too deeply") from None
    if node is None:
        raise InvalidYaml(1, "the file is empty")
    return _Reader().document(node)


class _Reader:
    def __init__(self) -> None:
        self._scalars = yaml.constructor.SafeConstructor()
        self._lines: dict[Path, int] = {}
        self._nodes = 0

    def document(self, node: yaml.Node) -> Parsed:
        return Parsed(self._value(node, (), _line(node)), self._lines)

    def _value(self, node: yaml.Node, path: Path, line: int) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES or len(path) > DEEPEST:
            raise InvalidYaml(line, "is nested too deeply, or too large")
        self._lines[path] = line
        if node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if node.tag == f"{_TAG}seq":
            return [
                self._value(each, (*path, place), _line(each))
                for place, each in enumerate(node.value)
            ]
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != f"{_TAG}str":
                raise InvalidYaml(_line(key), "the name of a field is not a string")
            if key.value in found:
                raise InvalidYaml(_line(key), f"{key.value!r} is there twice")
            # The line of the name: the value may begin on a later one.
            found[key.value] = self._value(value, (*path, key.value), _line(key))
        return found

    def _scalar(self, node: yaml.Node, line: int) -> Any:
        if node.tag == _TIMESTAMP:
            return node.value
        if node.tag not in _SCALARS:
            raise InvalidYaml(line, f"the tag {node.tag} is not supported")
        try:
            return self._scalars.construct_object(node)
        except (ValueError, yaml.YAMLError):  # 0b, or more digits than Python reads
            raise InvalidYaml(line, "a value that cannot be read") from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
