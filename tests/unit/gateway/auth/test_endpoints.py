"""The endpoints that proxy keys may use, and the table of them in the docs."""

from pathlib import Path

import pytest

from services.gateway.auth.endpoints import LISTS, RULES, route_of
from services.gateway.errors import Problem
from tests.support.clients.attacks import FRAMES, HTTP


def test_the_table_in_the_docs_is_what_is_tried() -> None:
    """Each route is tried with a foreign id at two gateways and with one that does not
    exist; each frame with both, first and later on its socket."""
    lines = [f"| {attack.what} | 3 | {attack.result} |" for attack in HTTP]
    for frame in FRAMES:
        tries = 1 if frame.kind == "msg" else 4
        lines.append(f"| socket, {frame.what} | {tries} | {frame.result} |")
    assert "\n".join(lines) in Path("docs/isolation.md").read_text(), "\n".join(lines)


def test_every_route_with_an_id_is_tried() -> None:
    tried = {(attack.method, attack.what.split(" /v1")[1]) for attack in HTTP}
    wanted = {(r.method, r.template) for r in RULES if "{id}" in r.template}
    assert wanted <= tried


def test_a_route_gives_the_ids_of_its_path() -> None:
    route = route_of("GET", b"/conversations/conv_1/items/msg_1")
    assert (route.object_id, route.child_id) == ("conv_1", "msg_1")
    assert route_of("GET", b"/models/ft:gpt%3A1").object_id is None
    assert route_of("HEAD", b"/responses/resp_1").object_id == "resp_1"


@pytest.mark.parametrize("path", sorted(LISTS))
def test_lists_say_why_they_are_refused(path: bytes) -> None:
    with pytest.raises(Problem, match="PROXY_FOREIGN_IDS=allow") as refused:
        route_of("GET", path)
    assert refused.value.code == "list_not_isolated"


def test_an_endpoint_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(Problem, match="POST /v1/new/resp_1:") as refused:
        route_of("POST", b"/new/resp_1")
    assert refused.value.code == "endpoint_not_isolated"
