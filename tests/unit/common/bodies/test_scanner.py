"""Hints read in steps: the same as those of a plain JSON parser, whatever the body
and wherever it is cut, and no step is long."""

import gc
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libs.common.bodies import scanner
from libs.common.bodies.hints import Hints, Reading, quick_hints, read_hints
from libs.common.bodies.minted_ids import is_minted
from tests.fuzz.bounds import EXAMPLES

PATH = b"/responses"


def in_steps(body: bytes, isolate: bool = False) -> Hints:
    reading = Reading(PATH, [], body, isolate)
    for _ in reading.steps():
        pass
    return reading.hints


@pytest.fixture(params=[8, 9, 13, 64, 16_384])
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bodies are cut into slices of this size."""
    use_step(monkeypatch, request.param)
    return int(request.param)


def use_step(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(scanner, "STEP", size)
    patch.setattr(scanner, "SMALLEST", max(1, size // 4))
    patch.setattr(scanner, "SPARE_WORK", 1 << 30)


# The reference: json.loads, and the rules of isolation in plain words ------------


def reference(body: bytes, isolate: bool) -> dict[str, Any]:
    try:
        text = body.decode("utf-8", "replace")
        fields = json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        fields = None
    unreadable = not isinstance(fields, dict)
    try:
        body.decode()
    except UnicodeDecodeError:
        unreadable = True
    if not isinstance(fields, dict):
        fields = {}
    found: dict[str, Any] = {
        "model": text_of(fields.get("model")),
        "stream": fields.get("stream") is True,
        "background": fields.get("background") is True,
        "previous_response_id": text_of(fields.get("previous_response_id")),
        "session_id": session_of(fields),
    }
    ids, encrypted = newest_of(items_of(fields, "input"))
    found["account_bound"] = encrypted
    found["bound_ids"] = (*first_of(fields), *ids, *objects_of(fields))
    if isolate:
        found["named"] = named_of(fields)
        found["references"] = set(ids) | references_of(fields)
        found["problem"] = "unreadable" if unreadable else None
    return found


def text_of(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return value[:512].encode("utf-8", "replace").decode()


def first_of(fields: dict[str, Any]) -> list[str]:
    conversation = fields.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    first = text_of(fields.get("previous_response_id")), text_of(conversation)
    return [id_ for id_ in first if id_]


def objects_of(fields: dict[str, Any]) -> list[str]:
    """The first four that are minted: of items, newest first, then others."""
    of_items: list[Any] = []
    for item in reversed(items_of(fields, "input")):
        content = item.get("content")
        if len(of_items) < 4 and isinstance(content, list):
            of_items += [id_ for id_ in files_of(content) if is_minted(id_)]
    others = [fields.get("file_id"), *listed(fields.get("file_ids"))]
    for tool in items_of(fields, "tools"):
        others += listed(tool.get("vector_store_ids"))
        container: Any = tool.get("container")
        inner = isinstance(container, dict)
        others += listed(container.get("file_ids")) if inner else [container]
    return [id_ for id_ in (*of_items, *others) if is_minted(id_)][:4]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def session_of(fields: dict[str, Any]) -> str | None:
    for name in ("metadata", "client_metadata"):
        inner = fields.get(name)
        if isinstance(inner, dict) and text_of(inner.get("session_id")):
            return text_of(inner["session_id"])
    return text_of(fields.get("prompt_cache_key"))


def items_of(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    given = fields.get(name)
    return [i for i in given if isinstance(i, dict)] if isinstance(given, list) else []


def newest_of(items: list[dict[str, Any]]) -> tuple[list[str], bool]:
    ids = [item["id"] for item in reversed(items) if is_minted(item.get("id"))]
    return ids[:8], any(
        item.get("encrypted_content") not in (None, "") for item in items
    )


def references_of(fields: dict[str, Any]) -> set[str]:
    items = items_of(fields, "input") + items_of(fields, "items")
    return {i["id"] for i in items if is_minted(i.get("id")) and not carries(i)}


def carries(item: dict[str, Any]) -> bool:
    kind = item.get("type") if isinstance(item.get("type"), str) else None
    if kind == "item_reference":
        return False
    if item.get("encrypted_content") not in (None, ""):
        return kind is not None
    content = item.get("content")
    if kind is None or kind == "message":
        has = isinstance(content, str | list | dict) and content not in ("", [])
        return has and (kind is not None or isinstance(item.get("role"), str))
    if kind in ("function_call", "custom_tool_call"):
        return any(item.get(name) not in (None, "") for name in ("arguments", "input"))
    output = item.get("output")
    return kind.endswith("_output") and isinstance(output, str | list | dict)


def named_of(fields: dict[str, Any]) -> set[str]:
    found: list[Any] = [*first_of(fields), fields.get("file_id")]
    found += listed(fields.get("file_ids"))
    for item in items_of(fields, "input") + items_of(fields, "items"):
        found.append(item.get("file_id"))
        found += files_of(item.get("content")) + files_of(item.get("output"))
    for tool in items_of(fields, "tools"):
        found += listed(tool.get("vector_store_ids"))
        container: Any = tool.get("container")
        inner = isinstance(container, dict)
        found += listed(container.get("file_ids")) if inner else [container]
    return {text_of(id_) or "" for id_ in found if isinstance(id_, str) and id_}


def files_of(parts: Any) -> list[Any]:
    """Part by part."""
    found: list[Any] = []
    for part in [parts] if isinstance(parts, dict) else listed(parts):
        if isinstance(part, dict):
            inner = part.get("file")
            found.append(part.get("file_id"))
            found.append(inner.get("file_id") if isinstance(inner, dict) else None)
    return found


def compared(hints: Hints, isolate: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": hints.model,
        "stream": hints.stream,
        "background": hints.background,
        "previous_response_id": hints.previous_response_id,
        "session_id": hints.session_id,
        "account_bound": hints.account_bound,
        "bound_ids": hints.bound_ids,
    }
    if isolate:
        found["named"] = set(hints.named)
        found["references"] = set(hints.references)
        found["problem"] = hints.problem
    return found


# Bodies ---------------------------------------------------------------------------

NAMES = (
    *(
        "id",
        "type",
        "role",
        "content",
        "output",
        "arguments",
        "input",
        "items",
        "model",
    ),
    *("stream", "background", "file_id", "file_ids", "file", "tools", "metadata"),
    *("session_id", "client_metadata", "prompt_cache_key", "previous_response_id"),
    *("conversation", "container", "vector_store_ids", "encrypted_content", "x", ""),
)
TEXTS = (
    *("rs_1", "msg_2", "fc_3", "file-4", "vs_5", "cntr_6", "message", "reasoning"),
    *("function_call", "function_call_output", "item_reference", "user", ""),
    *('"input":[{"id":"rs_9"}]', "},{", "],", '\\"', "\\", "\ud83d", "é\U0001f600"),
)
SYNTAX = '\\"{}[],:u \n'
PLANES = (
    (0, 0x7F),
    (0x80, 0x7FF),
    (0x800, 0xD7FF),
    (0xE000, 0xFFFF),
    (1 << 16, 0x10FFFF),
)
FLOATS = (0.0, -0.0, 0.5, 1e-320, 1.7e308)
SIZES = (0, 255, 1 << 16, 1 << 63, 1 << 70)


class Pairs(list[tuple[str, Any]]):
    """An object, whose names may come twice."""


class Maker:
    """Makes bodies of a seed. To draw each part of one from Hypothesis took a hundred
    times as long."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._leaves = 0
        # Some have what json.dumps writes and no JSON parser should read.
        self._floats = (*FLOATS, float("inf")) if seed % 4 == 0 else FLOATS

    def body(self) -> Pairs:
        return Pairs(self._member() for _ in range(self._upto(6)))

    def _member(self) -> tuple[str, Any]:
        match self._chance.randrange(3):
            case 0:
                return self._chance.choice(NAMES), self._any()
            case 1:
                items = [self._item() for _ in range(self._upto(5))]
                return self._chance.choice(("input", "items", "tools")), items
            case _:
                return self._chance.choice(("metadata", "conversation")), self._item()

    def _item(self) -> Pairs:
        return Pairs(self._named(self._any()) for _ in range(self._upto(6)))

    def _any(self) -> Any:
        self._leaves = 12
        return self._value()

    def _value(self) -> Any:
        kind = self._chance.randrange(4)
        self._leaves -= 1
        if kind < 2 or self._leaves < 0:
            return self._scalar()
        inner = [self._value() for _ in range(self._upto(5))]
        return inner if kind == 2 else Pairs(map(self._named, inner))

    def _scalar(self) -> Any:
        chance = self._chance
        small = chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300)
        whole = chance.randint(-1, 1) * chance.randint(0, chance.choice(SIZES))
        plain = None, True, False, whole, chance.choice((*self._floats, small))
        words = self._letters(6), "".join(chance.choices(SYNTAX, k=self._upto(12)))
        known = chance.choice(TEXTS)
        return chance.choice((*plain, *words, *[known] * 5))

    def _letters(self, most: int) -> str:
        planes = self._chance.choices(PLANES, k=self._upto(most))
        return "".join(chr(self._chance.randint(*plane)) for plane in planes)

    def _named(self, value: Any) -> tuple[str, Any]:
        return self._chance.choice(NAMES), value

    def _upto(self, most: int) -> int:
        return self._chance.randint(0, most)


class Writer:
    """Writes JSON with spaces and escapes here and there."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._dense = self._chance.random() < 0.5
        self._ascii = self._chance.random() < 0.5

    def write(self, value: Any) -> str:
        if isinstance(value, Pairs):
            members = [
                f"{self._text(n)}{self._gap()}:{self.write(v)}" for n, v in value
            ]
            return (
                self._gap() + "{" + ",".join(members) + self._gap() + "}" + self._gap()
            )
        if isinstance(value, list):
            elements = [self.write(one) for one in value]
            return self._gap() + "[" + ",".join(elements) + self._gap() + "]"
        if isinstance(value, str):
            return self._gap() + self._text(value) + self._gap()
        return self._gap() + json.dumps(value) + self._gap()

    def _gap(self) -> str:
        if self._dense:
            return ""
        return self._chance.choice(["", "", " ", "\n\t", "\r\n  "])

    def _text(self, text: str) -> str:
        if self._chance.random() < 0.2:
            units = text.encode("utf-16-be", "surrogatepass").hex()
            quads = [units[i : i + 4] for i in range(0, len(units), 4)]
            return '"' + "".join(f"\\u{quad}" for quad in quads) + '"'
        surrogates = any("\ud800" <= c <= "\udfff" for c in text)
        return json.dumps(text, ensure_ascii=self._ascii or surrogates)


def document(seed: int) -> bytes:
    return Writer(seed).write(Maker(seed).body()).encode()


@pytest.fixture
def untraced() -> Iterator[None]:
    """Pauses coverage's tracer. It is called for each call of what makes documents, and
    would be most of the time that is measured. Other tests cover the same lines."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.mark.usefixtures("untraced")  # once for all examples
@settings(
    max_examples=EXAMPLES or 500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=st.integers(0, 2**64).map(document),
    isolate=st.booleans(),
    size=st.sampled_from([8, 11, 33, 16384]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=3),
)
@example(body=b"{}", isolate=True, size=8, cuts=[(0.0, b""), (0.0, b"")])
def test_documents_are_judged_as_a_json_parser_does(
    body: bytes, isolate: bool, size: int, cuts: list[tuple[float, bytes]]
) -> None:
    """Whole ones, then the same damaged."""
    with pytest.MonkeyPatch.context() as patch:
        use_step(patch, size)
        read = in_steps(body, isolate)
        assert compared(read, isolate) == reference(body, isolate)
        quick = quick_hints(PATH, [], body, isolate)
        # Steps do not know whether a null was there.
        assert quick is None or replace(quick, continues=True) == read
        for where, put in cuts:
            place = int(where * len(body))
            body = body[:place] + put + body[place + 1 :]
        found = in_steps(body, isolate=True)
    assert found.problem == reference(body, isolate=True)["problem"]
    damaged = read_hints(PATH, [], body, isolate=True)
    assert damaged.problem == (found.problem if body else None)  # nothing names nothing


# Bounds -----------------------------------------------------------------------------

# What is repeated, and what stands before and after it.
HOSTILE: dict[str, tuple[bytes, ...]] = {
    "items": (b"{},",),
    "lists": (b"[],",),
    "numbers": (b"1,",),
    "parts": (b"{},", b'{"input":[{"content":[', b"]}]}"),
    "files": (b'{"file_id":"file-1"},', b'{"input":[{"content":[', b"]}]}"),
    "odd items": (b'{"id":5},',),
    "bad UTF-8": (b'{"id":"\xff"},',),
    "half emojis": (rb'{"a":"\ud800"},',),
    "escapes": (rb"\u0041", b'{"input":"', b'"}'),
    "backslashes": (rb"\\", b'{"input":"', b'"}'),
    "one text": (b"x", b'{"input":"', b'"}'),
    "one number": (b"1", b'{"input":', b"}"),
    "spaces": (b" ", b'{"input":', b"1}"),
    "deep": (b"[", b'{"input":', b""),
    "deep lists": (b"[" * 60 + b"]" * 60 + b",",),
    "members": (b'"a":1,', b"{", b"}"),
    "models": (b'"model":"m",', b"{", b"}"),
    "metadata": (b'"k":"v",', b'{"metadata":{', b"}}"),
    "tools": (b'{"container":"cntr_1"},', b'{"tools":[', b"]}"),
    "file ids": (b'"file-1",', b'{"file_ids":[', b"]}"),
    "one name": (b"k", b'{"', b'":1}'),
    "large items": (b'{"content":[{"text":"' + b"x" * 20_000 + b'"}]},',),
}


def of_size(
    size: int, unit: bytes, before: bytes = b'{"input":[', after: bytes = b"]}"
) -> bytes:
    count = (size - len(before) - len(after)) // len(unit)
    return before + (unit * count).rstrip(b",") + after


@pytest.fixture
def frozen() -> None:
    """Keeps what earlier tests left out of the garbage collections of this one, as the
    gateway does with what it holds (services/gateway/process.py): a full collection
    took 0.2 s in the middle of a step."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("untraced", "frozen")
@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_no_step_is_long(parts: tuple[bytes, ...], isolate: bool) -> None:
    reading = Reading(PATH, [], of_size(3_000_000, *parts), isolate)
    longest, began = 0.0, time.thread_time()
    for _ in reading.steps():
        ended = time.thread_time()
        longest, began = max(longest, ended - began), ended
    assert reading.hints is not None
    longest = max(longest, time.thread_time() - began)
    # The bound is 5 ms on an idle machine (docs/benchmarks.md); processor time counts
    # more under load, and one call for the whole body would take hundreds.
    assert longest < 0.025


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_no_body_takes_much_memory(parts: tuple[bytes, ...], isolate: bool) -> None:
    """Tracing takes five times as long as reading, so bodies are smaller."""
    body = of_size(1_500_000, *parts)
    reading = Reading(PATH, [], body, isolate)
    tracemalloc.start()
    try:
        for _ in reading.steps():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reading.hints is not None
    assert peak < 2 * len(body)  # and the body itself


def test_the_newest_items_of_millions_are_found() -> None:
    items = b"{}," * 1_000_000 + b'{"id":"msg_1"},{"id":"rs_2","encrypted_content":"x"}'
    body = b'{"input":[' + items + b'],"model":"m"}'
    found = in_steps(body)
    assert (found.bound_ids, found.model) == (("rs_2", "msg_1"), "m")
    assert found.account_bound
    assert in_steps(body, isolate=True).problem == "too_many_ids"


def test_what_is_given_up_keeps_its_first_hints() -> None:
    deep = b"[" * 5_000 + b"]" * 5_000
    body = b'{"model":"m","input":[{"id":"rs_1"}],"x":' + deep + b"}"
    found = in_steps(body)
    assert (found.model, found.bound_ids) == ("m", ("rs_1",))
    assert in_steps(body, isolate=True).problem == "unreadable"


def test_a_small_body_is_read_at_once_and_a_large_one_in_steps() -> None:
    body = b'{"input":"%b"}'
    assert quick_hints(PATH, [], body % (b"x" * 45_000)) is not None
    assert quick_hints(PATH, [], body % (b"x" * 70_000)) is None
    assert quick_hints(PATH, [], b'{"input":[{"id":5}]}') is None


def test_long_texts_give_the_same_hints_as_short_ones() -> None:
    pad = "x" * 100_000
    body = {"model": "é" * 100_000, "conversation": "conv_" + pad, "x": pad,
            "input": [{"id": "rs_" + pad}, {"id": "msg_1", "content": pad,
                                            "type": "message"}]}  # fmt: skip
    found = in_steps(json.dumps(body).encode(), isolate=True)
    assert found.model == "é" * 512
    assert found.named == (("conv_" + pad)[:512],)
    assert found.references == ("msg_1",)
