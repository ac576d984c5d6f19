"""Handles one HTTP request: journal, account, fault, answer, delivery."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from libs.simulator import bodies
from libs.simulator.api import errors
from libs.simulator.api.errors import ApiError
from libs.simulator.dialects import Azure, Dialect, OpenAi
from libs.simulator.faults.delivery import Exchange, scripted_body
from libs.simulator.faults.faults import NO_FAULT, Fault, Faults
from libs.simulator.faults.holding import Holding
from libs.simulator.headers import RateWindow, answer_headers
from libs.simulator.settings import Settings
from libs.simulator.state.accounts import Account, Accounts
from libs.simulator.state.journal import Entry, Journal, Pairs
from libs.simulator.state.rates import Rates
from libs.simulator.wire import Answer, Json, Plain, Stream, encode


@dataclass(frozen=True)
class Call:
    """What a handler gets."""

    account: Account
    method: str
    target: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json
    raw: bytes
    fault: Fault = NO_FAULT

    def number(self, name: str, default: int) -> int:
        value = self.query.get(name, "")
        return int(value) if value.isdecimal() else default


Handler = Callable[[Call], Awaitable[Answer]]
WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """The checks before every route of the service."""

    def __init__(self, settings: Settings) -> None:
        self.accounts = Accounts(
            settings.keys, any_key=settings.any_key, named=settings.name_accounts
        )
        self.faults = Faults()
        self.journal = Journal(
            settings.max_journal_entries, settings.max_journal_body_bytes
        )
        self.holding = Holding()
        self.rates = Rates()
        self.dialect: Dialect = Azure(settings.models) if settings.azure else OpenAi()
        self._window = RateWindow()

    def guard(self, handler: Handler, *, holds: bool = False) -> WebHandler:
        """Wrap a handler for aiohttp. `holds`: the route waits while its key is
        held."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            started = time.monotonic()
            try:
                raw = await request.read()
            except web.HTTPRequestEntityTooLarge:
                problem = self.refusal(errors.too_large())
                headers = self.headers(self._known(request), started)
                return web.Response(
                    status=problem.status,
                    body=problem.body,
                    headers=headers,
                    content_type="application/json",
                )
            with Recorded(self.journal, self.opened_entry(request, raw)) as entry:
                exchange, answer = await self._answer(request, entry, raw, handler)
                broken = await exchange.broken()
                if broken or answer is None:
                    return broken or web.Response()
                return await self._deliver(exchange, answer, holds=holds)

        return guarded

    def headers(
        self, account: Account | None, started: float, status: int = 200
    ) -> dict[str, str]:
        used = self._window.count(account, time.time()) if account else 0
        usual = answer_headers(account, used, started, named=self.accounts.named)
        return self.dialect.headers(usual, status)

    def opened_entry(self, request: web.Request, raw: bytes) -> Entry:
        upgrade = request.headers.get("upgrade", "").lower() == "websocket"
        return Entry(
            key=self.dialect.key(request.headers, upgrade=upgrade),
            method=request.method,
            target=request.raw_path,
            headers=raw_headers(request),
            body=raw,
        )

    def refusal(self, problem: ApiError) -> Plain:
        return Plain(encode(self.envelope(problem)), problem.status)

    def envelope(self, problem: ApiError) -> Json:
        return {"error": self.dialect.error(problem)}

    def _known(self, request: web.Request) -> Account | None:
        try:
            return self.accounts.admit(
                self.dialect.key(request.headers), request.headers
            )
        except ApiError:
            return None

    async def _answer(
        self, request: web.Request, entry: Entry, raw: bytes, handler: Handler
    ) -> tuple[Exchange, Answer | None]:
        """What is to be sent; nothing when a fault breaks the connection."""
        started = time.monotonic()
        account, fault = None, NO_FAULT
        answer: Answer | None = None
        try:
            account = self.accounts.admit(entry.key, request.headers)
            entry.account = account.name
            body = _body(request, raw)
            entry.asked(body)
            fault = self.faults.take(entry.key, entry.path, entry.model, "http")
            answer = self._scripted_answer(fault, entry, account)
            if answer is None and not _breaks(fault):
                self.dialect.check_model(entry.model)
                self.rates.take(account.name, entry.model, body, len(raw))
                call = Call(
                    account,
                    request.method,
                    request.path,
                    request.match_info,
                    request.query,
                    request.headers,
                    body,
                    raw,
                    fault,
                )
                answer = await handler(call)
        except ApiError as problem:
            answer = self.refusal(problem)
        status = answer.status if isinstance(answer, Plain) else 200
        headers = self.headers(account, started, status)
        if account is not None and answer is not None:
            told = self.rates.headers(account.name, entry.model, status)
            headers |= self.dialect.headers(told, status) if told else {}
        return Exchange(request, entry, fault, headers), answer

    def _scripted_answer(
        self, fault: Fault, entry: Entry, account: Account
    ) -> Plain | None:
        problem = scripted(fault, entry, account)
        if problem is None:
            return None
        body, content_type = scripted_body(fault, self.envelope(problem))
        return Plain(body, problem.status, content_type)

    async def _deliver(
        self, exchange: Exchange, answer: Answer, *, holds: bool
    ) -> web.StreamResponse:
        try:
            if holds and (isinstance(answer, Stream) or answer.status == 200):
                await self.holding.pass_by(exchange.entry.key)
            return await exchange.send(answer)
        finally:
            answer.release()
            if isinstance(answer, Stream):
                await answer.frames.aclose()


class Recorded:
    """Completes a journal entry, noting whether the client disconnected first."""

    def __init__(self, journal: Journal, entry: Entry) -> None:
        self._journal = journal
        self._entry = entry
        journal.open(entry)

    def __enter__(self) -> Entry:
        return self._entry

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # When the client disconnects, aiohttp cancels the handler or fails its next
        # write.
        if kind and issubclass(kind, asyncio.CancelledError | ConnectionError):
            self._entry.client_left()
        self._journal.close(self._entry)


def raw_headers(request: web.BaseRequest) -> Pairs:
    """The headers as sent: order, case and repetitions kept."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.raw_headers
    ]


def scripted(fault: Fault, entry: Entry, account: Account) -> ApiError | None:
    """The error that a fault prescribes."""
    if fault.revoked:
        return errors.wrong_key(entry.key)
    status = fault.status
    if status is None and fault.error_event and not entry.stream:
        status = 500
    if status is None:
        return None
    return errors.by_status(
        status,
        fault.code,
        fault.message,
        model=entry.model or "",
        account=account.name,
    )


def _breaks(fault: Fault) -> bool:
    return fault.reset or fault.garbage or bool(fault.timeout)


def _body(request: web.Request, raw: bytes) -> Json:
    if request.content_type.startswith("multipart/"):
        return {}
    return bodies.parsed(
        bodies.decoded(raw, request.headers.get("content-encoding", ""))
    )
