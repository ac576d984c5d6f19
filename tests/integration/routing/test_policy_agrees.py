"""The function library and its Python reference, run with the same random histories on
a real server: they make the same choices, and lease counts stay correct."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from libs.common.contracts.catalogue import ResourceState
from libs.common.redis.keys import DEFAULT
from libs.common.routing.account_limits import AccountLimits
from libs.common.routing.types import model_digest
from tests.fuzz.bounds import EXAMPLES
from tests.integration.routing.histories.health import Health
from tests.integration.routing.histories.queues import Queues
from tests.integration.routing.histories.requests import Requests
from tests.integration.routing.histories.services import Services
from tests.integration.routing.histories.values import SILENT_MS
from tests.support.databases import function_keys


class Histories(Requests, Queues, Health, Services):
    """What holds at every step."""

    @invariant()
    def in_flight_is_what_leases_say(self) -> None:
        if not self.python.resources:
            return
        states = {s.id: s for s in self.run(self.lua.states())}
        found = {id_: state.in_flight for id_, state in states.items()}
        truth = Counter(self.held.values())
        assert found == self.python.in_flight() == {id_: truth[id_] for id_ in states}
        ranked = self.run(
            self.redis.zrange(function_keys.ranking("*"), 0, -1, withscores=True)
        )
        expected = {s.resource_id: s.rank for s in self.python.standings()}
        assert {id_.decode(): rank for id_, rank in ranked} == expected
        self.limits_agree(states)
        assert self.queues_in_redis() == self.queues_in_python()
        for id_, health in self.python.health.items():
            if id_ in states and not states[id_].paused_models:
                assert states[id_].health == health.state

    def queues_in_redis(self) -> dict[str, Any]:
        """Class -> its entries in order, and the requests and shares that wait."""
        found = {}
        for queue in self.run(self.lua.queues()):
            name = f"account:{queue.account_id}"
            if queue.account_id is None:
                name = f"pool:{queue.pool_id or '*'}"
            order = self.run(
                self.redis.zrange(function_keys.queue(name), 0, -1, withscores=True)
            )
            entries = [(start, entry.decode()) for entry, start in order]
            found[name] = entries, (queue.requests, queue.shares)
        return found

    def queues_in_python(self) -> dict[str, Any]:
        queues, counts = self.python.queues.by_class, self.python.queues.waiting()
        return {name: (queue.order, counts[name]) for name, queue in queues.items()}

    def limits_agree(self, states: dict[str, ResourceState]) -> None:
        """What operators are shown."""
        for model in ("gpt-5.5", 'odd "model"'):
            known = self.python.limits.of(model_digest(model), self.now)
            for id_, state in states.items():
                account = self.python.resources[id_].account_id
                ours = _shown(known.get(account), self.now)
                theirs = [
                    (limits.remaining_requests, limits.remaining_tokens)
                    for limits in state.limits
                    if limits.model == model
                ]
                assert theirs == ours

    def teardown(self) -> None:
        if self.python.resources:
            self.end_everything()
        self.run(self.redis.aclose())
        self.runner.close()

    def end_everything(self) -> None:
        """Half of the requests are released; the gateways of the others crash."""
        for request in list(self.held)[::2]:
            self.run(self.lua.abandon(self.owner[request], [request]))
            del self.held[request]
        self.run(self.lua.reap(SILENT_MS, strays=True))
        self.now += SILENT_MS + 1
        self.run(self.lua.reap(SILENT_MS))
        assert sum(s.in_flight for s in self.run(self.lua.states())) == 0
        assert self.run(self.redis.keys(function_keys.leases("*"))) == []
        assert self.run(self.redis.keys(f"{DEFAULT.tag}:retired")) == []


def _shown(
    limits: AccountLimits | None, now: float
) -> list[tuple[float | None, float | None]]:
    """Requests and tokens that remain."""
    if limits is None or limits.ends <= now:
        return []
    requests, tokens = (
        each.remaining if each.limit and each.reset_at > now else None
        for each in (limits.requests, limits.tokens)
    )
    return [(requests, tokens)]


@pytest.mark.timeout(600)  # shrinking a failure takes up to five minutes
def test_lua_and_python_agree_on_every_history(valkey: str) -> None:
    Histories.url = valkey
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
