"""Summaries of histories, and the tool calls they lead to."""

from typing import Any

import pytest

from libs.simulator.state.threads import Thread, best_call

EXEC = {
    "type": "function",
    "name": "exec_command",
    "parameters": {
        "type": "object",
        "properties": {"cmd": {"type": "string"}, "tty": {"type": "boolean"}},
        "required": ["cmd"],
    },
}
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
SHELL = {
    "type": "function",
    "name": "shell",
    "parameters": {"properties": {"command": {"type": "array"}}},
}
CODE = {"type": "custom", "name": "exec"}
PATCH = {"type": "custom", "name": "apply_patch"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("items", "asks", "answered"),
    [
        pytest.param([user("run-tool")], True, False, id="asked"),
        pytest.param(
            [user("run-tool"), {"type": "function_call_output", "output": "hi"}],
            True,
            True,
            id="answered",
        ),
        pytest.param(
            [user("run-tool"), {"type": "custom_tool_call_output"}, user("thanks")],
            False,
            False,
            id="a later message",
        ),
        pytest.param(
            [
                user("run-tool"),
                {"type": "function_call_output"},
                user("again run-tool"),
            ],
            True,
            False,
            id="asked again",
        ),
        pytest.param(
            [{"role": "developer", "content": "run-tool"}],
            False,
            False,
            id="only users ask",
        ),
    ],
)
def test_a_tool_is_asked_for(
    items: list[dict[str, Any]], *, asks: bool, answered: bool
) -> None:
    thread = Thread().extended(items)
    assert (thread.asks_for_tool, thread.tool_answered) == (asks, answered)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        pytest.param(None, None, id="no tools"),
        pytest.param([{"type": "web_search"}], None, id="hosted tools only"),
        pytest.param(["x"], None, id="nonsense"),
        pytest.param(
            [WEATHER, EXEC], ("exec_command", '{"cmd":"echo hi"}'), id="shell first"
        ),
        pytest.param(
            [SHELL], ("shell", '{"command":["bash","-lc","echo hi"]}'), id="array"
        ),
        pytest.param(
            [PATCH, WEATHER], ("weather", '{"city":"hi","days":1}'), id="any function"
        ),
        pytest.param([PATCH], ("apply_patch", "echo hi"), id="custom"),
        pytest.param(
            [{"type": "namespace", "name": "functions", "tools": [CODE, WEATHER]}],
            ("exec", 'text(await tools.exec_command({ cmd: "echo hi" }));'),
            id="code mode inside a namespace",
        ),
    ],
)
def test_the_call_made(tools: Any, expected: tuple[str, str] | None) -> None:
    call = best_call(tools)
    assert (call and (call.name, call.arguments)) == expected


def test_tools_offered_inside_the_input_are_remembered() -> None:
    offered = {"type": "additional_tools", "tools": [EXEC]}
    thread = Thread().extended([offered, user("run-tool")])
    assert thread.tool is not None
    assert thread.tool.name == "exec_command"


def test_tokens_are_a_quarter_of_the_characters_rounded_up() -> None:
    assert Thread().extended([user("12345")]).tokens == 2
    assert Thread().opening("1234").extended([user("1234")]).tokens == 2


def test_the_echo_is_short_and_on_one_line() -> None:
    thread = Thread().extended([user("a\nb " + "x" * 200)])
    assert thread.echo.startswith("a b x")
    assert len(thread.echo) == 80
