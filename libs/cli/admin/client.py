"""A client of the admin API. Every failure is a `ProxyError` of one line."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from libs.cli.admin.access import Access
from libs.cli.admin.kinds import Fields, Kind
from libs.common.errors import ProxyError, SettingError

SECONDS = 30.0  # for one answer: providers' addresses are looked up
PAGE = 500
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ApiRefused(ProxyError):
    """The API's own message."""


class AdminApi:
    """`transport` replaces the network."""

    def __init__(
        self, access: Access, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._access = access
        headers = {"accept": "application/json"}
        if access.token is not None:
            headers["authorization"] = f"Bearer {access.token}"
        self._http = httpx.Client(
            base_url=access.url,
            headers=headers,
            timeout=SECONDS,
            transport=transport,
            # HTTPS_PROXY may be there for the upstream; it does not lead back here.
            trust_env=urlsplit(access.url).hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return self._call("GET", "/openapi.json")

    def rows(self, kind: Kind) -> list[dict[str, Any]]:
        """All of a kind, over all pages."""
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {"limit": str(PAGE)} if kind.paged else {}
        while True:
            page = self._call("GET", f"/admin/{kind.name}", query=query)
            found += page["data"]
            if cursor := page.get("next_cursor"):
                query["cursor"] = cursor
            elif after := page.get("next_after"):
                query["after"] = after
            else:
                return found

    def create(self, kind: Kind, fields: Fields) -> dict[str, Any]:
        if kind.put:
            rest = {k: v for k, v in fields.items() if k != kind.label}
            return self.change(kind, fields[kind.label], rest)
        return self._call("POST", f"/admin/{kind.name}", body=fields)

    def change(self, kind: Kind, id_: str, fields: Fields) -> dict[str, Any]:
        method = "PUT" if kind.put else "PATCH"
        return self._call(method, _path(kind, id_), body=fields)

    def remove(self, kind: Kind, id_: str) -> dict[str, Any]:
        return self._call("DELETE", _path(kind, id_))

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Fields | None = None,
    ) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, params=query, json=body)
        except httpx.TimeoutException:
            unknown = "" if method == "GET" else ". The change may have been made"
            raise ProxyError(
                f"{self._access.url} did not answer within {SECONDS:g} s{unknown}"
            ) from None
        except httpx.HTTPError as error:
            raise ProxyError(
                f"{self._access.url} cannot be reached ({error}). Does the proxy run? "
                "--url or PROXY_PUBLIC_URL says where"
            ) from None
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.is_success and isinstance(document, dict):
            return document
        error = document.get("error") if isinstance(document, dict) else None
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            raise ProxyError(
                f"{answer.url} answered {answer.status_code}, but not as the admin API "
                "does. Is this the address of the proxy, without a path?"
            )
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise self._wrong_token()
        raise ApiRefused(error["message"])

    def _wrong_token(self) -> SettingError:
        url, source = self._access.url, self._access.source
        if self._access.token is None:
            return SettingError(
                "PROXY_ADMIN_TOKEN",
                f"is not set, and {url} requires the admin token",
                "Set it, or give --token-file",
            )
        return SettingError(
            source,
            f"holds another token than that of {url}",
            "`responses-proxy admin-token`, run with the router's environment, shows "
            "or replaces it",
        )


def _path(kind: Kind, id_: str) -> str:
    return f"/admin/{kind.name}/{quote(id_, safe='/:@')}"
