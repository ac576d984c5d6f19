"""The dashboard's files comply with the content security policy."""

import re

import pytest

from libs.common.browser_guard import CHECKED, Guard
from services.router.admin.auth.access import Browsers
from services.router.dashboard_files import CSP, DASHBOARD, FILES, Page
from tests.support.values.admin import client

TEXTS = {name: (DASHBOARD / name).read_text() for name, _ in FILES.values()}


def test_every_file_is_served() -> None:
    assert {path.name for path in DASHBOARD.iterdir()} == set(TEXTS)


@pytest.mark.parametrize("name", ["index.html", "app.js", "registry.js", "style.css"])
def test_nothing_comes_from_another_host(name: str) -> None:
    outside = re.findall(r"https?://[^\s\"')]+", TEXTS[name])
    assert [url for url in outside if url != "http://www.w3.org/2000/svg"] == []
    assert "'unsafe" not in CSP


SCRIPTS = ["app.js", "registry.js"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_users_sent_is_never_read_as_markup(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\("
    assert re.findall(forbidden, TEXTS[name]) == []


def test_the_page_has_no_inline_script_or_style() -> None:
    page = TEXTS["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_find_their_elements(name: str) -> None:
    wanted = set(re.findall(r"\$\(\"([\w-]+)\"\)", TEXTS[name]))
    assert wanted <= set(re.findall(r'id="([\w-]+)"', TEXTS["index.html"]))


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_served_with_what_protects_it(path: str) -> None:
    name, content_type = FILES[path]
    router = client({path: Page(name, content_type)}, Browsers(Guard()))
    result = router.simulate_get(path, headers={CHECKED: "1"})
    assert result.content == (DASHBOARD / name).read_bytes()
    assert result.headers["content-type"] == content_type
    assert result.headers["content-security-policy"] == CSP
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["referrer-policy"] == "no-referrer"
    assert result.headers["cache-control"] == "no-cache"
