"""Paths stay below /v1."""

import pytest

from services.gateway.content.request_path import upstream_path
from services.gateway.errors import Problem


@pytest.mark.parametrize(
    "path",
    [b"/v1/responses", b"/v1/files/a%20b", b"/v1/x.y/..z", b"/v1/", b"/v1/a..b/c"],
)
def test_plain_paths_pass_as_they_are(path: bytes) -> None:
    assert upstream_path(path) == path[3:]


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../admin",
        b"/v%31/responses",
        b"/%76%31/responses",
        b"/v1/..",
        b"/v1/a/./b",
        b"/v1/%2e%2e/admin",
        b"/v1/.%2E/admin",
        b"/v1/a%2Fb",
        b"/v1/a%5cb",
        b"/v1/a\\b",
    ],
)
def test_dot_segments_and_encoded_slashes_are_refused(path: bytes) -> None:
    with pytest.raises(Problem) as refused:
        upstream_path(path)
    assert refused.value.status == 404
