"""Conversations of real clients, each bound to its upstream account in its own way.
Records what the HTTP clients were answered."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakSet

import httpx2
from openai import APIConnectionError, AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.responses import Response

from tests.support.processes.waiting import eventually

MODELS = ("gpt-5.5", "gpt-5.4")
ENCRYPTED = "reasoning.encrypted_content"
# An agent waits seconds between two tries of a stream, as Codex does. There is no wait
# after the last try.
STREAM_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2, 0.0)


@dataclass(frozen=True)
class Answer:
    """The answer of an HTTP client; `text` is set if it was an error."""

    request_id: str
    request: str
    status: int
    about: str
    text: str = ""


@dataclass
class Ears:
    """Everything the clients were answered."""

    answers: list[Answer] = field(default_factory=list)
    # Error codes of responses that failed after HTTP status 200.
    failed: list[str] = field(default_factory=list)
    # Requests without an answer yet; those that failed are collected.
    waiting: WeakSet[httpx2.Request] = field(default_factory=WeakSet)

    async def ask(self, request: httpx2.Request) -> None:
        self.waiting.add(request)

    async def hear(self, response: httpx2.Response) -> None:
        self.waiting.discard(response.request)
        text = ""
        if response.status_code >= 400:
            text = (await response.aread()).decode()
        told = response.headers
        self.answers.append(
            Answer(
                request_id=told.get("x-proxy-request-id", ""),
                request=f"{response.request.method} {response.request.url.path}",
                status=response.status_code,
                about=f"{told.get('x-proxy-resource-id')} {told.get('x-proxy-reason')}",
                text=text,
            )
        )


def client(url: str, ears: Ears) -> AsyncOpenAI:
    """An SDK client that retries like an application's."""
    http = DefaultAsyncHttpxClient(
        event_hooks={"request": [ears.ask], "response": [ears.hear]}
    )
    return AsyncOpenAI(api_key="any", base_url=url, max_retries=5, http_client=http)


@dataclass
class Gateways:
    """A client for each gateway, and how conversations use them."""

    clients: Sequence[AsyncOpenAI]
    # While this is cleared, conversations wait between turns.
    open: asyncio.Event = field(default_factory=asyncio.Event)
    paused: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    async def between_turns(self) -> None:
        self.paused += 1
        await self.open.wait()
        self.paused -= 1


@dataclass
class Talk:
    """One conversation with its own random generator."""

    name: str
    gateways: Gateways
    draw: random.Random
    ears: Ears
    turns: int = 5
    accounts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.model = self.draw.choice(MODELS)

    @property
    def client(self) -> AsyncOpenAI:
        """The client for the next request: any gateway."""
        return self.draw.choice(self.gateways.clients)

    def says(self, turn: int) -> str:
        return f"turn {turn} of {self.name}"

    async def heard(self, turn: int, text: str) -> None:
        """Check that the answer belongs to this conversation's history."""
        said, _, echo = text.removeprefix("Simulated answer from ").partition(": ")
        self.accounts.add(said)
        assert echo.startswith(self.says(turn)), f"{self.name}: {text!r}"
        assert len(self.accounts) == 1, f"{self.name}: {self.accounts}"
        await self.gateways.between_turns()


async def by_previous_response(talk: Talk) -> None:
    previous: str | None = None
    for turn in range(talk.turns):
        response = await talk.client.responses.create(
            model=talk.model, input=talk.says(turn), previous_response_id=previous
        )
        await talk.heard(turn, response.output_text)
        previous = response.id


async def by_conversation(talk: Talk) -> None:
    conversation = await talk.client.conversations.create()
    for turn in range(talk.turns):
        response = await talk.client.responses.create(
            model=talk.model, input=talk.says(turn), conversation=conversation.id
        )
        await talk.heard(turn, response.output_text)
    items = await talk.client.conversations.items.list(conversation.id, limit=50)
    assert len(items.data) == 2 * talk.turns
    await talk.client.conversations.delete(conversation.id)


async def by_items(talk: Talk, *, store: bool) -> None:
    """Sends the whole history each time, including the service's items."""
    history: list[Any] = []
    include: list[Any] = [] if store and talk.draw.random() < 0.5 else [ENCRYPTED]
    for turn in range(talk.turns):
        history.append({"role": "user", "content": talk.says(turn)})
        response = await talk.client.responses.create(
            model=talk.model, input=history, include=include, store=store
        )
        await talk.heard(turn, response.output_text)
        history += sent_back(response)


def sent_back(response: Response) -> list[dict[str, Any]]:
    return [item.model_dump(exclude_none=True) for item in response.output]


async def by_agent(talk: Talk) -> None:
    """The Agents SDK with its defaults: stored items, no session id."""
    # Here, because its import takes seconds of each worker's collection.
    from tests.support.clients import agents_sdk as sdk  # noqa: PLC0415

    include: list[Any] = [ENCRYPTED] if talk.draw.random() < 0.5 else []
    history: list[Any] = []
    for turn in range(talk.turns):
        agent = sdk.Agent(
            name="assistant",
            model=sdk.OpenAIResponsesModel(talk.model, talk.client),
            model_settings=sdk.ModelSettings(response_include=include),
            tools=[sdk.look_up],
        )
        said = talk.says(turn) + (" please run-tool" if turn % 2 else "")
        history.append({"role": "user", "content": said})
        result = await sdk.Runner.run(agent, history, run_config=sdk.UNTRACED)
        await talk.heard(turn, str(result.final_output))
        history = result.to_input_list()


async def streamed(talk: Talk, *, store: bool) -> None:
    """Streams; a stream that breaks off is requested again, as agents do."""
    history: list[Any] = []
    bound: dict[str, Any] = {}
    for turn in range(talk.turns):
        history.append({"role": "user", "content": talk.says(turn)})
        response = await _whole_stream(
            talk, model=talk.model, input=history, store=store, **bound
        )
        await talk.heard(turn, response.output_text)
        if store:
            history, bound = [], {"previous_response_id": response.id}
        else:
            history += sent_back(response)
            bound = {"include": [ENCRYPTED]}


async def _whole_stream(talk: Talk, **fields: Any) -> Response:
    for pause_s in STREAM_PAUSES:
        try:
            whole = await _stream(talk, **fields)
        except (APIConnectionError, httpx2.TransportError):
            whole = None
        if whole is not None:
            return whole
        await asyncio.sleep(pause_s)
    raise AssertionError(f"{talk.name}: no stream was whole")


async def _stream(talk: Talk, **fields: Any) -> Response | None:
    """The response that ended a stream, unless it failed."""
    whole: Response | None = None
    async with await talk.client.responses.create(stream=True, **fields) as events:
        async for event in events:
            if event.type == "response.completed":
                whole = event.response
            elif event.type == "response.failed":
                error = event.response.error
                talk.ears.failed.append(str(error and error.code))
    return whole


async def retrieved(talk: Talk) -> None:
    """Retrieves stored responses, counts tokens, and runs in the background."""
    previous: str | None = None
    for turn in range(talk.turns):
        response = await _looked_up(talk, turn, previous)
        await talk.heard(turn, response.output_text)
        previous = response.id
    assert previous is not None
    stopped = await talk.client.responses.create(
        model=talk.model,
        input="never mind",
        previous_response_id=previous,
        background=True,
        metadata={"simulate_duration_ms": "60000"},
    )
    cancelled = await talk.client.responses.cancel(stopped.id)
    assert cancelled.status == "cancelled"
    await talk.client.responses.delete(previous)


async def _looked_up(talk: Talk, turn: int, previous: str | None) -> Response:
    background = turn % 2 == 1
    created = await talk.client.responses.create(
        model=talk.model,
        input=talk.says(turn),
        previous_response_id=previous,
        background=background,
        metadata={"simulate_duration_ms": "40"},
    )
    if background:

        async def ended() -> Response | None:
            polled = await talk.client.responses.retrieve(created.id)
            return polled if polled.status == "completed" else None

        finished = await eventually(ended, every_s=0.05)
        assert finished is not None
        return finished
    items = await talk.client.responses.input_items.list(created.id)
    assert len(items.data) == 1
    return await talk.client.responses.retrieve(created.id)


Kind = Callable[[Talk], Awaitable[None]]
# By what binds the conversation; a name may occur more than once, in variants.
KINDS: dict[str, Sequence[Kind]] = {
    "previous": [by_previous_response],
    "conversation": [by_conversation],
    "items": [by_agent, partial(by_items, store=True), partial(by_items, store=False)],
    "stream": [partial(streamed, store=True), partial(streamed, store=False)],
    "retrieval": [retrieved],
}


def talks(count: int) -> list[tuple[str, Kind]]:
    """This many conversations, spread evenly over kinds and their variants."""
    listed = []
    for number in range(count):
        name = list(KINDS)[number % len(KINDS)]
        variants = KINDS[name]
        variant = number // len(KINDS) % len(variants)
        listed.append((f"{name}-{number}", variants[variant]))
    return listed
