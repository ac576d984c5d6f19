"""README.md's configuration tables have every setting with its default, and what the
documents name exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common.settings import resources
from libs.common.settings.base import Settings
from libs.common.settings.http_proxies import VARIABLES as PROXIES
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
        and not file.name.endswith(".min.js")  # written by others
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


COMPOSE = (ROOT / "docker-compose.yml").read_text()
BALANCER = (ROOT / "deploy/balancer/haproxy.cfg").read_text()
# The limits of connections, by section.
BALANCER_LIMIT = re.compile(
    r'^(\S.*)\n(?:(?:  .*)?\n)*?  maxconn "(.*)"$', re.MULTILINE
)
OF_PROXIES = {name for names in PROXIES.values() for name in names}
NUMBERED_KEYS = {f"OPENAI_API_KEY_{n}" for n in range(1, 51)}


def in_file(name: str) -> list[str]:
    """The lines of a file that Compose reads variables from."""
    lines = (ROOT / "deploy" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class TestCompose:
    """docker-compose.yml sets some variables; deploy/variables.env passes on the rest
    from the shell."""

    SET = frozenset(
        re.findall(
            r"^    ([A-Z_]+): ", COMPOSE.partition("\nservices:")[0], re.MULTILINE
        )
    )
    PASSED = frozenset(in_file("variables.env"))
    # PROXY_DATABASE_URL falls back on these.
    FALLBACKS = frozenset({"SERVICE_DATABASE_URL", "DATABASE_URL"})
    USELESS = frozenset({"PROXY_SQLITE_URL", "PROXY_SIMULATE"})

    def test_every_setting_reaches_the_services(self) -> None:
        expected = VARIABLES - self.FALLBACKS - self.USELESS
        assert expected | OF_PROXIES | NUMBERED_KEYS <= self.SET | self.PASSED
        assert all(f"${{{variable}:-" in COMPOSE for variable in self.FALLBACKS)

    def test_no_other_variable_is_passed_on(self) -> None:
        known = VARIABLES | OF_PROXIES | NUMBERED_KEYS | {"NO_PROXY", "no_proxy"}
        assert known >= self.SET | self.PASSED

    def test_the_explained_configuration_is_the_balancers(self) -> None:
        text = (ROOT / "docs/operate.md").read_text().partition("### The balancer\n")[2]
        rows = re.findall(r"^\| (`[^|]+) \|", text.partition("\n## ")[0], re.MULTILINE)
        explained = [line for row in rows for line in re.findall(r"`([^`]+)`", row)]
        assert len(explained) >= 12
        pieces = [piece for line in explained for piece in line.split(" … ")]
        assert [piece for piece in pieces if piece not in BALANCER] == []

    def test_clients_leave_the_balancer_connections_for_held_requests(self) -> None:
        # Each held request takes one, and another whenever a gateway is lost again.
        limits = dict(BALANCER_LIMIT.findall(BALANCER))
        assert set(limits) == {"global", "frontend address"}
        most = {
            section: int(limit.replace("${BALANCER_MAX_CONNECTIONS-10000}", "20"))
            for section, limit in limits.items()
        }
        assert most["frontend address"] == 20
        assert most["global"] >= 4 * most["frontend address"]

    def test_the_balancer_has_memory_for_all_its_connections(self) -> None:
        # Measured: 6,000 uploads that the gateway does not read hold 712 MiB.
        (memory,) = re.findall(r"BALANCER_MEMORY:-([0-9]+)m\}", COMPOSE)
        (connections,) = re.findall(r"BALANCER_MAX_CONNECTIONS:-([0-9]+)\}", COMPOSE)
        assert int(memory) * 2**20 > int(connections) * 125_000

    def test_the_balancers_log_has_no_query(self) -> None:
        (shape,) = re.findall(r'^  log-format "(.*)"$', BALANCER, re.MULTILINE)
        assert "%HPO" in shape
        assert not re.search(r"%(\{\+Q\})?(r|HU|HQ)\b", shape)
        assert "option httplog" not in BALANCER

    def test_clients_speak_http_1_with_the_balancer(self) -> None:
        # A connection of HTTP/2 has a hundred requests, and counts as one.
        assert re.findall(r"bind :8000 (.*)", BALANCER) == ["proto h1"]

    def test_no_password_is_an_argument(self) -> None:
        """All users of a host can read the arguments of a process. A Redis server
        overwrites its own."""
        lines = [line for line in COMPOSE.splitlines() if "PASSWORD" in line]
        of_redis = "- ${REDIS_PASSWORD:-}"
        arguments = [x for x in lines if "test:" in x or x.lstrip().startswith("- ")]
        assert [line.strip() for line in arguments] == [of_redis]
        assert f"- --requirepass\n      {of_redis}\n" in COMPOSE

    def test_the_variables_of_compose_are_documented(self) -> None:
        text = (ROOT / "docs/operate.md").read_text().partition("\n## Compose\n")[2]
        limits = re.compile(r"[A-Z]+_(CPUS|MEMORY)")
        read = set(re.findall(r"\$\{([A-Z_]+)[:}]", COMPOSE)) - VARIABLES
        named = set(re.findall(r"`([A-Z_]+)", text.partition("\n## ")[0]))
        others = {"PROMETHEUS_PORT", "GRAFANA_PORT"}
        assert {n for n in read if not limits.fullmatch(n)} - others <= named

    def test_the_demo_uses_no_real_key(self) -> None:
        demo = dict(line.split("=", 1) for line in in_file("profiles/demo.env"))
        assert set(demo) >= {name for name in self.PASSED if name.startswith("OPENAI_")}
        assert {demo[name] for name in ("OPENAI_API_KEY", *NUMBERED_KEYS)} == {""}
        assert all(
            key.startswith("sk-sim-") for key in demo["OPENAI_API_KEYS"].split(",")
        )


def test_the_example_environment_names_real_settings() -> None:
    lines = (ROOT / "deploy" / "env.example").read_text().splitlines()
    named = {m[1] for line in lines if (m := re.match(r"#?([A-Z_0-9]+)=", line))}

    of_compose = set(re.findall(r"\$\{([A-Z_]+)[:}]", COMPOSE))
    assert named <= VARIABLES | of_compose | {"COMPOSE_PROFILES"}
