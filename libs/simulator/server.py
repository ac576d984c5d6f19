"""The composition root: builds and runs the application."""

import asyncio
import socket

from aiohttp import web

from libs.simulator.api import errors, extras
from libs.simulator.api.control import Control
from libs.simulator.api.conversations import Conversations
from libs.simulator.api.objects import object_routes
from libs.simulator.api.responses import Responses
from libs.simulator.api.turns import Turns
from libs.simulator.api.websocket import Sockets
from libs.simulator.exchange import Call, Gate, Handler
from libs.simulator.settings import MAX_BODY_BYTES, Settings
from libs.simulator.state.jobs import Jobs
from libs.simulator.state.state import State
from libs.simulator.wire import Answer

# aiohttp waits this long twice: for handlers to end, then for those it has canceled.
_SHUTDOWN_S = 0.3
_MAX_HEADER_BYTES = 64 * 1024
_BACKLOG = 1024
# From accept() until a connection is made: its task, its transport, its protocol.
_TURNS_TO_ACCEPT = 3


class Simulation(Gate):
    """The whole state of one simulated upstream."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.storage = State(settings)
        self.turns = Turns(self.storage)
        self.jobs = Jobs(self.turns)


SIMULATION = web.AppKey("simulation", Simulation)


def build_app(settings: Settings) -> web.Application:
    """The service and its control API."""
    simulation = Simulation(settings)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SIMULATION] = simulation
    app.add_routes(Control(simulation).routes())
    app.router.add_get("/healthz", _healthz)
    _add_responses(app, simulation)
    for method, path, handler in _plain_routes(simulation):
        app.router.add_route(
            method, simulation.dialect.prefix + path, simulation.guard(handler)
        )
    app.router.add_route("*", "/{tail:.*}", simulation.guard(_no_route))

    async def close_jobs(_: web.Application) -> None:
        await simulation.jobs.close()

    app.on_cleanup.append(close_jobs)
    return app


def _add_responses(app: web.Application, simulation: Simulation) -> None:
    responses = Responses(
        simulation.storage,
        simulation.turns,
        simulation.jobs,
        simulation.settings.background_ms,
    )
    sockets = Sockets(simulation, simulation.turns)
    refuse = simulation.guard(_no_route)

    async def upgrade(request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await sockets.connect(request)
        return await refuse(request)

    root = f"{simulation.dialect.prefix}/responses"
    app.router.add_get(root, upgrade)
    app.router.add_post(root, simulation.guard(responses.create, holds=True))
    routes: list[tuple[str, str, Handler]] = [
        ("POST", "/input_tokens", responses.input_tokens),
        ("POST", "/compact", responses.compact),
        ("GET", "/{id}", responses.show),
        ("DELETE", "/{id}", responses.delete),
        ("POST", "/{id}/cancel", responses.cancel),
        ("GET", "/{id}/input_items", responses.input_items),
    ]
    for method, path, handler in routes:
        app.router.add_route(method, root + path, simulation.guard(handler))


def _plain_routes(simulation: Simulation) -> list[tuple[str, str, Handler]]:
    conversations = Conversations(simulation.storage)
    models = extras.Models(simulation.settings.models)
    files = extras.Files(simulation.storage)
    return [
        ("POST", "/conversations", conversations.create),
        ("GET", "/conversations/{id}", conversations.show),
        ("POST", "/conversations/{id}", conversations.update),
        ("DELETE", "/conversations/{id}", conversations.delete),
        ("GET", "/conversations/{id}/items", conversations.list_items),
        ("POST", "/conversations/{id}/items", conversations.add_items),
        ("GET", "/conversations/{id}/items/{item}", conversations.show_item),
        ("DELETE", "/conversations/{id}/items/{item}", conversations.delete_item),
        ("GET", "/models", models.list_all),
        ("GET", "/models/{model}", models.show),
        ("POST", "/chat/completions", extras.chat),
        ("POST", "/embeddings", extras.embeddings),
        ("POST", "/files", files.create),
        ("GET", "/files", files.list_all),
        ("GET", "/files/{id}", files.show),
        ("GET", "/files/{id}/content", files.content),
        ("DELETE", "/files/{id}", files.delete),
        *object_routes(simulation.storage),
    ]


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _no_route(call: Call) -> Answer:
    raise errors.unknown_route(call.method, call.target)


class RunningSimulator:
    """A simulator that is listening."""

    def __init__(
        self, runner: web.AppRunner, listener: socket.socket, app: web.Application
    ) -> None:
        self._runner = runner
        self._listener = listener
        self.state = app[SIMULATION]
        self._host, self.port = listener.getsockname()[:2]

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self.port}{self.state.dialect.prefix}"

    @property
    def control_url(self) -> str:
        return f"http://{self._host}:{self.port}/__sim"

    def revoke(self, key: str) -> None:
        """Answer 401 to every request with this key, until it is restored."""
        self.state.accounts.revoke(key)

    def restore(self, key: str) -> None:
        self.state.accounts.restore(key)

    async def close(self) -> None:
        """Stop listening and close every connection, within a second."""
        self.state.holding.release()
        await end(self._runner, self._listener)


async def listen(runner: web.AppRunner, host: str, port: int) -> socket.socket:
    """Start serving: the socket that listens. Port 0 selects a free port."""
    await runner.setup()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    await web.SockSite(runner, listener, backlog=_BACKLOG).start()
    return listener


async def end(runner: web.AppRunner, listener: socket.socket) -> None:
    """Stop serving and close every connection. Python 3.11 leaves a connection open if
    its server is closed while it is being accepted, so accepting stops first."""
    asyncio.get_running_loop().remove_reader(listener)
    for _ in range(_TURNS_TO_ACCEPT):
        await asyncio.sleep(0)
    await runner.cleanup()


async def serve(
    settings: Settings, host: str = "127.0.0.1", port: int = 0
) -> RunningSimulator:
    """Start listening; port 0 selects a free port."""
    app = build_app(settings)
    runner = web.AppRunner(
        app,
        access_log=None,
        # The journal needs bodies as sent.
        auto_decompress=False,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_S,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )
    return RunningSimulator(runner, await listen(runner, host, port), app)
