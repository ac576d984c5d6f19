"""One request for the list of models, or for one of them."""

import msgspec

from libs.common.bodies.hints import Hints
from libs.common.bodies.scanner import Scan
from libs.common.proxy_keys import Principal
from services.gateway import errors
from services.gateway.content.headers import JSON_TYPE
from services.gateway.errors import Problem
from services.gateway.proxy.exchange import HttpExchange
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.model_list.relay import ModelListRelay, without_length
from services.gateway.proxy.relay import Relay
from services.gateway.proxy.steps import Next
from services.gateway.routing.target import Target
from services.gateway.routing.visible_models import VisibleModels, model_asked_for
from services.gateway.upstream.client import Answer, UpstreamError


class _Known(Exception):
    """The gateway itself knows the answer."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


class ModelsExchange(HttpExchange):
    """Like any other request, but the list is changed for the key that asks; an alias
    is described by the gateway, and a model that the key may not use is not there."""

    __slots__ = ("_visible",)

    _visible: VisibleModels | None

    def _admit(
        self,
        path: bytes,
        principal: Principal | None,
        hints: Hints,
        plain: bytes,
        scan: Scan | None,
    ) -> None:
        super()._admit(path, principal, hints, plain, scan)
        self._visible = None
        visible = VisibleModels(
            self._services.selector.catalogue.alias_targets, principal
        )
        name = model_asked_for(path)
        if name is None:
            if visible.differs:
                self._visible = visible
                self.life.asks_plainly()
            return
        if not visible.shows(name):
            raise errors.unknown_model(name)
        alias = visible.alias(name)
        if alias is not None:
            raise _Known(msgspec.json.encode(alias))

    def _takes(self, error: BaseException) -> bool:
        if not isinstance(error, _Known):
            return super()._takes(error)
        headers = [JSON_TYPE, *self.life.headers_of_ours]
        if self._capture is not None:
            self._capture.whole(headers, error.body)
        self._answer = 200, headers, error.body
        self.life.served(len(error.body))
        return True

    async def _attempt(self, life: Lifecycle, target: Target) -> Next:
        try:
            return await super()._attempt(life, target)
        except UpstreamError as error:
            self._drop()
            return life.failed(error, self._services.limits.request_s)
        except Problem:
            self._drop()
            raise

    def _begin_relay(self, answer: Answer, target: Target) -> Relay:
        if self._visible is None or answer.status >= 300:
            return super()._begin_relay(answer, target)
        if self.life.request.method == "HEAD":
            answer.headers = without_length(answer.headers)
            return super()._begin_relay(answer, target)
        super()._begin_relay(answer, target)
        sent, capture = target.sent, self._capture
        relay = self._relay = ModelListRelay(
            answer, self._connection, capture, sent, self._visible
        )
        return relay

    def _drop(self) -> None:
        """The list did not come, or cannot be read; nothing was sent."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None
