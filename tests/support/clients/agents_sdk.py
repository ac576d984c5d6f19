"""What tests use of the Agents SDK. They import this when they run: it takes seconds of
CPU, and each worker collects all tests."""

from typing import Any

from agents import (
    Agent,
    ModelBehaviorError,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
    responses_websocket_session,
)

from tests.support.clients.conformance import MODEL

__all__ = [
    "Agent",
    "ModelBehaviorError",
    "ModelSettings",
    "OpenAIConversationsSession",
    "OpenAIProvider",
    "OpenAIResponsesModel",
    "RunConfig",
    "Runner",
    "responses_websocket_session",
]


@function_tool
def exec_command(cmd: str) -> str:
    """Run a command."""
    return f"ran {cmd}"


@function_tool
def look_up(word: str) -> str:
    """A tool: says something about a word."""
    return f"nothing is known of {word}"


AGENT: Agent[Any] = Agent(name="plain", model=MODEL)
HANDY: Agent[Any] = Agent(name="handy", model=MODEL, tools=[exec_command])
SEALED: Agent[Any] = Agent(
    name="sealed",
    model=MODEL,
    model_settings=ModelSettings(
        store=False, response_include=["reasoning.encrypted_content"]
    ),
)
UNTRACED = RunConfig(tracing_disabled=True)
