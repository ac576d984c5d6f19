"""What services do beside requests."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.routing.types import Lease, Owner
from tests.integration.routing.histories.both import Both
from tests.integration.routing.histories.values import (
    BOUNDS,
    GATEWAYS,
    IDS,
    LARGE,
    RESOURCES,
    SESSIONS,
    SILENT_MS,
    SMALL,
    TENANTS,
)


class Services(Both):
    """The router publishes and reaps; gateways beat; SQL tells owners."""

    @initialize(resources=st.one_of(SMALL, LARGE), bounds=BOUNDS)
    def begin(self, resources: list[Resource], bounds: dict[str, Any]) -> None:
        self.bounded_by(bounds)
        self.run(self.redis.flushall())
        self.run(self.lua.load_library())
        self.publish(resources)

    @rule(resources=st.one_of(SMALL, LARGE))
    def publish(self, resources: list[Resource]) -> None:
        self.count += 1
        catalogue = Catalogue(version=f"v{self.count}", resources=tuple(resources))
        self.run(self.lua.publish(catalogue, f"e{self.count}"))
        self.python.publish(resources)

    @rule(
        session=SESSIONS,
        ids=IDS,
        number=st.integers(0, RESOURCES),
        account=st.sampled_from(["a", "b", "gone"]),
        tenant=TENANTS,
    )
    def told_by_sql(
        self,
        session: str,
        ids: tuple[str, ...],
        number: int,
        account: str,
        tenant: str,
    ) -> None:
        owner = Owner(f"openai-{number}", account, tenant) if number else None
        sessions = {session: owner} if session else {}
        owners = dict.fromkeys(ids, owner)
        self.run(self.lua.adopt(sessions, owners))
        self.python.remember(sessions, owners)
        kept = self.run(self.lua.kept(sessions, owners))
        known = [self.python.sessions.get(session) for session in sessions]
        assert [k.owner for k in kept] == known + list(map(self.python.ids.get, owners))
        assert all((k.left_ms > 0) is (k.owner is not None) for k in kept)

    @rule(gateway=GATEWAYS)
    def beat(self, gateway: str) -> None:
        beat = self.run(self.lua.heartbeat(gateway))
        assert beat.known == self.python.heartbeat(gateway, self.now)
        if beat.known:
            return
        # Reaped or new: the requests it still serves count again.
        leases = [
            Lease(request, self.held[request], b"{}")
            for request, owner in self.owner.items()
            if owner == gateway and request in self.held
        ]
        self.run(self.lua.resume(gateway, leases))
        self.python.resume(gateway, leases)

    @rule(strays=st.booleans())
    def reap(self, *, strays: bool) -> None:
        """To the router, gateways without heartbeats have crashed."""
        ended = self.python.reap(SILENT_MS, self.now, strays=strays)
        assert self.run(self.lua.reap(SILENT_MS, strays=strays)) == len(ended)
        for request in ended:
            self.held.pop(request, None)  # one that waits holds no resource
