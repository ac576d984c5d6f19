"""Where the admin API is, and the token for it."""

from pathlib import Path

import pytest

from libs.cli.admin.access import access
from libs.common.errors import ProxyError


def test_options_come_before_settings(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("of-the-file\n")
    file = tmp_path / "token"
    file.write_text("of-the-option\n")
    environ = {"PROXY_DATA_DIR": str(tmp_path), "PROXY_PORT": "8123"}
    found = access(environ, None, None)
    assert (found.url, found.token) == ("http://127.0.0.1:8123", "of-the-file")
    assert found.source == str(tmp_path / "admin-token")
    environ |= {"PROXY_ADMIN_TOKEN": "of-the-setting", "PROXY_HOST": "0.0.0.0"}
    environ["PROXY_PUBLIC_URL"] = "https://proxy.example.com/"
    found = access(environ, None, None)
    assert found.url == "https://proxy.example.com"
    assert (found.token, found.source) == ("of-the-setting", "PROXY_ADMIN_TOKEN")
    found = access(environ, "http://other:1/", file)
    assert (found.url, found.token) == ("http://other:1", "of-the-option")
    assert found.source == "--token-file"
    assert "of-the" not in repr(found)


def test_there_may_be_no_token(tmp_path: Path) -> None:
    assert access({"PROXY_DATA_DIR": str(tmp_path)}, None, None).token is None


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("localhost:8000", "--url: is not an http"),
        ("http://a:8000/v1/", "--url: ends in /v1"),
        ("http://me:pass@a", "--url: contains a query, a fragment or credentials"),
    ],
)
def test_an_address_that_is_none(url: str, cause: str) -> None:
    with pytest.raises(ProxyError, match=cause) as refused:
        access({}, url, None)
    assert "pass" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "holds no token"), (b"a\nb", "holds no token"), (b"\xff", "holds no token"),
     (b"x" * 5000, "is too long"), (None, "No such file")],
)  # fmt: skip
def test_a_file_without_a_token(
    tmp_path: Path, content: bytes | None, cause: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ProxyError, match=cause):
        access({}, None, file)
