"""The dashboard's files comply with the content security policy and find each other."""

import re
from pathlib import PurePosixPath

import pytest

from libs.common.browser_guard import CHECKED, Guard
from services.router.admin.auth.access import Browsers
from services.router.dashboard_files import CSP, DASHBOARD, FILES, page
from tests.support.values.admin import client

TEXTS = {name: (DASHBOARD / name).read_text() for name, _ in FILES.values()}
OWN = sorted(name for name in TEXTS if not name.startswith("vendor/"))
SCRIPTS = [name for name in OWN if name.endswith(".js")]
VENDORED = sorted(set(TEXTS) - set(OWN))
MOST_VENDORED = 120_000  # bytes; the image has a bound
# In URLs of comments and of XML.
NAMED = r"https?://(?!www\.w3\.org/)[^\s\"'`)]+"


def test_every_file_is_served() -> None:
    files = {path for path in DASHBOARD.rglob("*") if path.is_file()}
    assert {path.relative_to(DASHBOARD).as_posix() for path in files} == set(TEXTS)


@pytest.mark.parametrize("name", OWN)
def test_nothing_comes_from_another_host(name: str) -> None:
    assert re.findall(NAMED, TEXTS[name]) == []
    assert "'unsafe" not in CSP


def test_what_others_wrote_loads_nothing_and_is_licensed() -> None:
    for name in VENDORED:
        loaded = re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)""", TEXTS[name])
        assert [path for path in loaded if not path.startswith(".")] == [], name
    notice = TEXTS["vendor/NOTICE.txt"]
    parts = {name.split("/")[1] for name in VENDORED} - {"NOTICE.txt"}
    assert [part for part in parts if part not in notice] == []
    assert (
        notice.count("Permission is hereby") + notice.count("Redistribution and use")
        == 2
    )
    assert sum(len(TEXTS[name].encode()) for name in VENDORED) < MOST_VENDORED


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_users_sent_is_never_read_as_markup(name: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|unsafe|"
        r"new Function|srcdoc"
    )
    assert re.findall(forbidden, TEXTS[name]) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_element_has_an_inline_style_or_handler(name: str) -> None:
    """The policy forbids them, so the browser would ignore them."""
    assert re.findall(r"<[^>]*\s(?:style|on\w+)=", TEXTS[name]) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_what_it_imports(name: str) -> None:
    folder = PurePosixPath("/dashboard", name).parent
    for names, path in re.findall(
        r'import (?:\{([^}]*)\} from )?"([^"]+)"', TEXTS[name]
    ):
        found = _normal(folder / path)
        assert found in FILES, path
        exports = TEXTS[FILES[found][0]]
        for each in filter(None, (part.strip() for part in names.split(","))):
            assert re.search(rf"\b{each}\b", exports), f"{path}: {each}"
    for path in re.findall(r'import\("([^"]+)"\)', TEXTS[name]):
        assert _normal(folder / path) in FILES, path


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts[1:]:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/" + "/".join(parts)


def test_the_page_has_no_inline_script_or_style() -> None:
    page = TEXTS["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []


def test_the_page_loads_what_is_served() -> None:
    loaded = re.findall(r'(?:href|src)="(/(?!docs)[^"]*)"', TEXTS["index.html"])
    assert len(loaded) > 3
    assert set(loaded) <= set(FILES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_find_their_elements(name: str) -> None:
    wanted = set(re.findall(r"\$\(\"([\w-]+)\"\)", TEXTS[name]))
    wanted |= set(re.findall(r"getElementById\(\"([\w-]+)\"\)", TEXTS[name]))
    assert wanted <= set(re.findall(r'id="([\w-]+)"', TEXTS["index.html"]))


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_served_with_what_protects_it(path: str) -> None:
    name, content_type = FILES[path]
    router = client({path: page(name, content_type)}, Browsers(Guard()))
    result = router.simulate_get(path, headers={CHECKED: "1"})
    assert result.content == (DASHBOARD / name).read_bytes()
    assert result.headers["content-type"] == content_type
    assert result.headers["content-security-policy"] == CSP
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["referrer-policy"] == "no-referrer"
    assert result.headers["cache-control"] == "no-cache"
