"""Summaries of conversation histories: enough to decide the next answer, small enough
to keep many. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from libs.simulator.api.create_request import item_text
from libs.simulator.api.schema_values import COMMAND, arguments
from libs.simulator.wire import Json, encode

_ECHO_CHARS = 80
_TOOL_WORD = "run-tool"
# Tools that coding agents offer, best first; any other function comes after them.
_PREFERRED = ("exec_command", "shell_command", "shell", "local_shell", "exec")
# For gpt-6 models Codex offers one custom tool, `exec`, which takes JavaScript.
_CUSTOM_INPUT = {
    "exec": f'text(await tools.exec_command({{ cmd: "{COMMAND}" }}));',
}


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the simulated model."""

    kind: str  # "function" or "custom"
    name: str
    arguments: str
    namespace: str | None = None


@dataclass(frozen=True)
class Thread:
    """The summary of a history."""

    chars: int = 0
    echo: str = ""
    asks_for_tool: bool = False
    # A tool answered after the last user message.
    tool_answered: bool = False
    tool: ToolCall | None = None

    @property
    def tokens(self) -> int:
        return -(-self.chars // 4)

    def extended(self, items: Iterable[Json]) -> "Thread":
        """The history with these items appended."""
        thread = self
        for item in items:
            thread = thread._with(item)
        return thread

    def _with(self, item: Json) -> "Thread":
        text = item_text(item)
        kind = item.get("type", "message")
        thread = replace(self, chars=self.chars + len(text))
        if kind == "message" and item.get("role") == "user":
            return replace(
                thread,
                echo=" ".join(text[: 4 * _ECHO_CHARS].split())[:_ECHO_CHARS],
                asks_for_tool=_TOOL_WORD in text,
                tool_answered=False,
            )
        if kind.endswith("_output"):
            return replace(thread, tool_answered=True)
        if kind == "additional_tools":
            return thread.offering(item.get("tools"))
        return thread

    def offering(self, tools: Any) -> "Thread":
        """The history with these tools available."""
        found = best_call(tools)
        return replace(self, tool=found) if found else self

    def opening(self, instructions: Any) -> "Thread":
        """The history with the instructions counted; instructions are not inherited."""
        length = len(instructions) if isinstance(instructions, str) else 0
        return replace(self, chars=self.chars + length)


def best_call(tools: Any) -> ToolCall | None:
    """The call to make, given the available tools."""
    calls = list(_calls(tools, None))
    return min(calls, key=_preference, default=None)


def _preference(call: ToolCall) -> int:
    if call.name in _PREFERRED:
        return _PREFERRED.index(call.name)
    return len(_PREFERRED) + (call.kind == "custom")


def _calls(tools: Any, namespace: str | None) -> Iterator[ToolCall]:
    offered: Sequence[Any] = tools if isinstance(tools, list) else ()
    for tool in offered:
        if not isinstance(tool, dict):
            continue
        kind, name = tool.get("type"), str(tool.get("name", ""))
        if kind == "namespace":
            yield from _calls(tool.get("tools"), name)
        elif kind == "function":
            sent = encode(arguments(tool.get("parameters"))).decode()
            yield ToolCall("function", name, sent, namespace)
        elif kind == "custom":
            yield ToolCall("custom", name, _CUSTOM_INPUT.get(name, COMMAND), namespace)
