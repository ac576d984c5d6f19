"""README.md's configuration tables have every setting with its default, and what the
documents name exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common.settings import resources
from libs.common.settings.base import Settings
from libs.common.settings.services import SERVICES, UpSettings

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
MODELS: tuple[type[Settings], ...] = (*SERVICES.values(), UpSettings)
VARIABLES = {v for model in MODELS for v in model.variables()} | set(
    resources.VARIABLES
)
# Rows of the tables under "## Configuration".
ROWS = [
    line
    for line in README.partition("\n## Configuration\n")[2]
    .partition("\n## ")[0]
    .splitlines()
    if line.startswith("| `")
]

PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
CODE = re.compile(r"`([^`\s]+\.(?:py|lua|sql|sh))(?:::?[^`]*)?`")
CITATION = re.compile(r"\b([\w-]+\.md)\b")
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?(?: \"[^\"]*\")?\)")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as GitHub names them."""
    found: dict[str, int] = {}
    names = set()
    for title in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"#{name}-{count}" if count else f"#{name}")
    return names


def broken_links(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target + anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPages:
    def test_its_links_lead_somewhere(self, page: Path) -> None:
        assert list(broken_links(page)) == []

    def test_the_files_it_names_exist(self, page: Path) -> None:
        named = {name for name in CODE.findall(page.read_text()) if "/" in name}
        missing = {name for name in named if not any(ROOT.glob(name))}
        assert missing == set()

    def test_it_names_files_by_their_path(self, page: Path) -> None:
        bare = {name for name in CODE.findall(page.read_text()) if "/" not in name}
        assert bare <= {"__init__.py"}


def test_code_cites_only_documents_that_are_here() -> None:
    here = {page.name for page in PAGES}
    sources = [
        file
        for folder in ("services", "libs", "tests", "bench", "deploy")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".lua", ".sql", ".sh", ".js", ".yml"}
    ]
    cited = {name for file in sources for name in CITATION.findall(file.read_text())}
    assert cited <= here


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_every_setting_is_documented(variable: str) -> None:
    assert any(f"`{variable}`" in row.split("|")[1] for row in ROWS)


def test_nothing_is_documented_that_is_not_read() -> None:
    named = {
        name
        for row in ROWS
        for name in re.findall(r"`((?:PROXY|OPENAI|SERVICE)_\w+)`", row.split("|")[1])
    }
    assert named <= VARIABLES


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_the_documented_ones(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        (row,) = [r for r in ROWS if f"`{field.alias}`" in r.split("|")[1]]
        default = row.split("|")[2]
        if field.default_factory is None and field.default is not None:
            value = field.default
            said = str(value).lower() if isinstance(value, bool) else str(value)
            if isinstance(value, Path):
                said = f"./{value}"
            assert f"`{said.removesuffix('.0')}" in default, name


def test_compose_passes_every_setting_on() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    # Set by compose itself, or meaningless in a container.
    others = {
        *("DATABASE_URL", "SERVICE_DATABASE_URL", "PROXY_SQLITE_URL"),
        *("PROXY_DATA_DIR", "PROXY_SIMULATE", "PROXY_TELEMETRY_CONSUMER"),
    }
    missing = {v for v in VARIABLES - others if f"  {v}:" not in compose}
    assert not missing


def test_the_example_environment_names_real_settings() -> None:
    lines = (ROOT / "deploy" / "env.example").read_text().splitlines()
    named = {m[1] for line in lines if (m := re.match(r"#?([A-Z_0-9]+)=", line))}

    of_compose = {"PUBLISH", "PUBLISH_PORTS", "POSTGRES_PASSWORD"}
    assert named <= VARIABLES | of_compose
