"""HEAD for everything that answers GET."""

from collections.abc import AsyncIterator

from falcon.asgi import Request, Response, SSEvent

from services.router.api.head import answer_head
from tests.support.values.admin import client


class Thing:
    async def on_get(self, _: Request, resp: Response, name: str) -> None:
        resp.text = name
        resp.set_header("x-name", name)


class Own:
    async def on_get(self, _: Request, resp: Response) -> None:
        resp.text = "get"

    async def on_head(self, _: Request, resp: Response) -> None:
        resp.set_header("x-own", "head")


class Writes:
    async def on_post(self, _: Request, resp: Response) -> None:
        resp.text = "post"


class Events:
    async def on_get(self, _: Request, resp: Response) -> None:
        resp.content_type = "text/event-stream"
        resp.sse = self._events()

    async def _events(self) -> AsyncIterator[SSEvent]:
        yield SSEvent(data=b"never")


ROUTES = {"/things/{name}": Thing(), "/own": Own(), "/writes": Writes(), "/s": Events()}
for each in ROUTES.values():
    answer_head(each)
API = client(ROUTES)


def test_head_is_get_without_the_body() -> None:
    result = API.simulate_head("/things/abc")
    assert (result.status_code, result.content) == (200, b"")
    assert (result.headers["x-name"], result.headers["content-length"]) == ("abc", "3")
    assert "HEAD" in API.simulate_options("/things/abc").headers["allow"]


def test_events_have_no_length() -> None:
    result = API.simulate_head("/s")
    assert (result.status_code, result.content) == (200, b"")
    assert result.headers["content-type"] == "text/event-stream"
    assert "content-length" not in result.headers


def test_nothing_else_gets_it() -> None:
    assert API.simulate_head("/own").headers["x-own"] == "head"
    refused = API.simulate_head("/writes")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")
