"""The /responses resource over HTTP."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from libs.simulator.api import answers, errors
from libs.simulator.api.create_request import Ask, parse
from libs.simulator.api.events import (
    Pad,
    events_of,
    is_terminal,
    with_error,
    with_metadata,
)
from libs.simulator.api.pages import page
from libs.simulator.api.turns import Turn, Turns
from libs.simulator.exchange import Call
from libs.simulator.faults.faults import Fault
from libs.simulator.state.jobs import Jobs
from libs.simulator.state.state import State, Stored
from libs.simulator.wire import (
    Answer,
    Json,
    Plain,
    Stream,
    decode,
    encode,
    json_answer,
    sse_frame,
)


def filler() -> str:
    """Random obfuscation of up to 16 characters."""
    text = secrets.token_urlsafe(12)
    return text[: 1 + ord(text[0]) % 16]


def pad_for(ask: Ask) -> Pad | None:
    return filler if ask.obfuscates else None


def turn_events(turn: Turn, fault: Fault) -> Iterator[Json]:
    """The events of a finished turn, changed by the fault."""
    events = events_of(turn.response, pad_for(turn.ask))
    if fault.metadata:
        events = with_metadata(events, turn.response_id, fault.metadata)
    spec = fault.error_event
    if spec is None:
        return events
    error: Json = {"code": spec.code, "message": spec.message, "param": None}
    if spec.nested:
        error = {"error": {"type": "server_error", **error}}
    return with_error(events, error)


class Responses:
    """Creates, retrieves, cancels and deletes responses."""

    def __init__(
        self, state: State, turns: Turns, jobs: Jobs, background_ms: int
    ) -> None:
        self._state = state
        self._turns = turns
        self._jobs = jobs
        self._background_ms = background_ms

    async def create(self, call: Call) -> Answer:
        ask = parse(call.body)
        turn = self._turns.prepare(call.account, ask, call.fault.fate)
        if ask.background:
            return self._in_background(turn)
        if ask.stream:
            return Stream(
                self._frames(turn, call.fault),
                release=lambda: self._turns.release(turn),
                response_id=turn.response_id,
            )
        body = encode(turn.response)
        return Plain(
            body,
            commit=lambda: self._turns.commit(turn, body),
            release=lambda: self._turns.release(turn),
            response_id=turn.response_id,
        )

    async def show(self, call: Call) -> Answer:
        stored = self._stored(call)
        if call.query.get("stream") != "true":
            return Plain(stored.response)
        after = call.number("starting_after", -1)
        obfuscated = call.query.get("include_obfuscation") != "false"
        pad = filler if obfuscated else None
        job = self._jobs.find(call.account, stored.response_id)
        if job:
            return Stream(_framed(job.follow(after, pad)))
        return Stream(_framed(_replay(decode(stored.response), after, pad)))

    async def delete(self, call: Call) -> Answer:
        response_id = call.path["id"]
        self._state.delete_response(call.account, response_id)
        self._jobs.forget(response_id)
        return json_answer({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, call: Call) -> Answer:
        stored = self._stored(call)
        if not decode(stored.response).get("background"):
            raise errors.no_cancel()
        job = self._jobs.find(call.account, stored.response_id)
        if job:
            self._jobs.cancel(job)
        return Plain(self._stored(call).response)

    async def input_items(self, call: Call) -> Answer:
        return json_answer(page(decode(self._stored(call).input_items), call.query))

    async def input_tokens(self, call: Call) -> Answer:
        count = self._turns.count(call.account, parse(call.body))
        return json_answer({"object": "response.input_tokens", "input_tokens": count})

    async def compact(self, call: Call) -> Answer:
        ask = parse({**call.body, "store": False, "stream": False})
        turn = self._turns.prepare(call.account, ask)
        self._turns.release(turn)
        items = [answers.compaction(call.account.mint, stored=False)]
        shown = {
            "id": turn.response_id,
            "object": "response.compaction",
            "created_at": turn.response["created_at"],
            "output": items,
            "usage": turn.response["usage"],
        }
        return json_answer(shown)

    def _stored(self, call: Call) -> Stored:
        response_id = call.path["id"]
        stored = self._state.response(call.account, response_id)
        if stored is None:
            raise errors.response_not_found(response_id)
        return stored

    def _in_background(self, turn: Turn) -> Answer:
        ask = turn.ask
        duration_ms = ask.number("simulate_duration_ms", self._background_ms)
        job = self._jobs.start(turn, duration_ms)
        if ask.stream:
            frames = _framed(job.follow(-1, pad_for(ask)))
            return Stream(frames, response_id=turn.response_id)
        return Plain(encode(job.turn.response), response_id=turn.response_id)

    async def _frames(self, turn: Turn, fault: Fault) -> AsyncGenerator[bytes, None]:
        for event in turn_events(turn, fault):
            if is_terminal(event) and event["type"] != "error":
                self._turns.commit(turn)
            yield sse_frame(event)


async def _framed(events: AsyncIterator[Json]) -> AsyncGenerator[bytes, None]:
    async for event in events:
        yield sse_frame(event)


async def _replay(response: Json, after: int, pad: Pad | None) -> AsyncIterator[Json]:
    for event in events_of(response, pad):
        if event["sequence_number"] > after:
            yield event
