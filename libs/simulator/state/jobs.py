"""Background responses: queued, in progress, ended. Their events can be followed
live."""

import asyncio
from collections.abc import AsyncIterator, Callable

from libs.simulator.api.answers import TERMINAL, pending
from libs.simulator.api.events import Pad, events_of
from libs.simulator.api.turns import Turn, Turns, changed
from libs.simulator.state.accounts import Account
from libs.simulator.wire import Json


def _keep_nothing(turn: Turn) -> None:
    """In place of the callback that stores: the response was deleted."""


class Job:
    """One background response; its state is the response's status."""

    def __init__(self, turn: Turn, keep: Callable[[Turn], None]) -> None:
        self.turn = changed(turn, pending(turn.response, "queued"))
        self._final = turn
        self._keep = keep
        self._moved = asyncio.Event()
        keep(self.turn)

    @property
    def ended(self) -> bool:
        return self.turn.response["status"] in TERMINAL

    async def run(self, duration_ms: float) -> None:
        queued_s = duration_ms / 4000
        await asyncio.sleep(queued_s)
        self.move(pending(self.turn.response, "in_progress"))
        await asyncio.sleep(duration_ms / 1000 - queued_s)
        self.move(self._final.response)

    def move(self, response: Json) -> None:
        """Change the status, unless the job has ended or was canceled."""
        if self.ended:
            return
        self.turn = changed(self.turn, response)
        self._keep(self.turn)
        self._moved.set()
        self._moved = asyncio.Event()

    def abandon(self) -> None:
        """Continue without storing anything."""
        self._keep = _keep_nothing

    async def follow(self, after: int, pad: Pad | None) -> AsyncIterator[Json]:
        """Yield the events numbered above `after` as they occur."""
        while True:
            moved, ended = self._moved, self.ended
            for event in events_of(self.turn.response, pad):
                if event["sequence_number"] > after:
                    after = event["sequence_number"]
                    yield event
            if ended:
                return
            # The status may have changed while the events above were being sent.
            if moved is self._moved:
                await moved.wait()


class Jobs:
    """All background responses in progress."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, turn: Turn, duration_ms: float) -> Job:
        job = Job(turn, self._turns.keep)
        self._jobs[turn.response_id] = job
        task = asyncio.create_task(self._finish(job, duration_ms))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def find(self, account: Account, response_id: str) -> Job | None:
        job = self._jobs.get(response_id)
        return job if job and job.turn.account == account else None

    def cancel(self, job: Job) -> None:
        job.move(pending(job.turn.response, "cancelled"))

    def forget(self, response_id: str) -> None:
        """The response was deleted: its job must not store it again."""
        job = self._jobs.pop(response_id, None)
        if job:
            job.abandon()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _finish(self, job: Job, duration_ms: float) -> None:
        try:
            await job.run(duration_ms)
            if self._jobs.get(job.turn.response_id) is job:
                self._turns.commit(job.turn)
        finally:
            self._turns.release(job.turn)
            self._jobs.pop(job.turn.response_id, None)
