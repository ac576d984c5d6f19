"""Every command of the documentation is executed by a test or by CI, or listed here
with the reason why it is not. A new block fails until it has a rule.

Blocks in `text`, `json` and `mermaid` are no commands, nor are blocks without a
language right behind another block: they show its output."""

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from libs.common.store.prices import read_prices
from tests.acceptance.docs.test_clients import named_in
from tests.support.clients import codex
from tests.support.processes.processes import ROOT
from tests.support.values.blocks import Block, blocks

NO_COMMANDS = {"text", "json", "mermaid"}


@dataclass(frozen=True)
class Test:
    """A test that executes the block's text, or the same commands."""

    __test__ = False

    file: str
    name: str

    def exists(self) -> bool:
        return self.name in named_in(ROOT / self.file)


@dataclass(frozen=True)
class Step:
    """A line of a script that CI runs."""

    file: str
    text: str

    def exists(self) -> bool:
        return self.text in (ROOT / self.file).read_text()


@dataclass(frozen=True)
class Unexecuted:
    """Executed by nobody. The commands must exist."""

    reason: str

    def exists(self) -> bool:
        return True


How = Test | Step | Unexecuted


@dataclass(frozen=True)
class Rule:
    """What executes the blocks of a page and language that begin with `first`."""

    page: str
    language: str
    first: str
    how: How

    def applies_to(self, block: Block) -> bool:
        same = (self.page, self.language) == (block.page, block.language)
        return same and block.first.startswith(self.first)


SESSION = Test("tests/acceptance/docs/test_session.py", "test_the_commands_of_the_docs")
PYTHON = Test("tests/acceptance/docs/test_session.py", "test_python_of_the_readme")
QUERIES = Test(
    "tests/integration/store/test_documented_queries.py",
    "test_every_documented_query_answers",
)
BACKUP = Test(
    "tests/integration/upgrade/test_backup.py",
    "test_a_backup_is_restored_while_gateways_serve",
)
_CHART = "tests/acceptance/kubernetes/test_docs.py"
HELM = Test(_CHART, "test_helm_accepts_the_commands")
VALUES = Test(_CHART, "test_the_values_on_the_page_are_accepted")
APPLY = Test("tests/integration/cli/test_apply.py", "test_the_documented_commands")
HERE = "tests/acceptance/docs/test_commands.py"
RULES = (
    Rule("README.md", "sql", "", QUERIES),
    Rule("README.md", "sh", "git clone", SESSION),  # which starts it by `make run`
    Rule("README.md", "sh", "make test", Step(".ci/run", "make --no-print-directory")),
    Rule("README.md", "console", "$ ", SESSION),
    Rule("README.md", "pycon", ">>> ", PYTHON),
    Rule("README.md", "python", "client = ", PYTHON),
    Rule("README.md", "toml", "model_provider",
         Test(HERE, "test_the_configuration_of_codex_is_the_tested_one")),
    Rule("docs/api.md", "console", "$ curl", SESSION),
    Rule("docs/apply.md", "console", "$ responses-proxy", APPLY),
    Rule("docs/apply.md", "yaml", "# proxy.yaml", APPLY),
    Rule("docs/benchmarks.md", "sh", "make bench",
         Unexecuted("measures for minutes, on a machine without other work")),
    Rule("docs/benchmarks.md", "sh", "make compile",
         Unexecuted("compiles for minutes, then measures")),
    Rule("docs/capacity.md", "sh", "",
         Test("tests/acceptance/docs/test_capacity.py",
              "test_the_command_computes_another_mix")),
    Rule("docs/capacity.md", "sql", "", QUERIES),
    Rule("docs/deploy-morph.md", "sh",
         "uv run --extra deploy python scripts/deploy_service.py --dry-run",
         Test("tests/acceptance/stack/test_page_commands.py",
              "test_the_dry_run_for_morph")),
    Rule("docs/deploy-morph.md", "sh",
         "uv run --extra deploy python scripts/deploy_service.py --destroy",
         Test("tests/integration/deploy/test_deploy_service.py",
              "test_destroy_stops_this_deployment_alone")),
    Rule("docs/kubernetes.md", "sh", "docker build", HELM),  # its image: tests/lab
    Rule("docs/kubernetes.md", "sh", "helm upgrade", HELM),
    Rule("docs/kubernetes.md", "sh", "kubectl",
         Unexecuted("needs a cluster; tests/acceptance/kubernetes checks the Secret")),
    Rule("docs/kubernetes.md", "sh", "cp -r deploy/kustomize",
         Test("tests/acceptance/kubernetes/test_derived.py",
              "test_the_example_changes_what_it_says")),
    Rule("docs/kubernetes.md", "yaml", "# values.yaml", VALUES),
    Rule("docs/kubernetes.md", "yaml", "ingress:", VALUES),
    Rule("docs/kubernetes.md", "yaml", "rules:",
         Unexecuted("of the Prometheus adapter; a test checks the metric's name")),
    Rule("docs/operate.md", "nginx", "",
         Test("tests/integration/server/test_server_restarts.py",
              "test_a_rolling_restart_behind_nginx_loses_nothing")),
    Rule("docs/operate.md", "dockerfile", "FROM responses-proxy",
         Test(HERE, "test_the_packages_of_traces_are_those_of_the_extra")),
    Rule("docs/operate.md", "sh", "export HTTPS_PROXY",
         Test("tests/integration/upstream/test_egress.py",
              "test_https_goes_through_one_tunnel_that_is_kept")),
    Rule("docs/operate.md", "console", "$ responses-proxy dead-letters",
         Test("tests/integration/ingest/test_dead_letters.py",
              "test_they_are_listed_and_shown")),
    Rule("docs/operate.md", "sh", "docker compose up -d --wait --scale",
         Step("tests/lab/compose.sh", "up --scale gateway=3")),
    Rule("docs/operate.md", "sh", "docker compose build",
         Step("tests/lab/compose.sh", "up --no-recreate --scale gateway=4 gateway")),
    Rule("docs/policies.md", "console", "$ curl", SESSION),
    Rule("docs/queries.md", "sql", "", QUERIES),
    Rule("docs/queries.md", "toml", "[[price]]",
         Test(HERE, "test_the_price_list_can_be_read")),
    Rule("docs/security-tests.md", "sh", "make attack",
         Unexecuted("runs for minutes to hours; CI fuzzes for seconds (`tests/fuzz`)")),
    Rule("docs/upgrade.md", "sh", "docker compose build",
         Step("tests/lab/compose.sh", 'up --no-deps "$service"')),
    Rule("docs/upgrade.md", "sh", "pg_dump", BACKUP),
    Rule("docs/upgrade.md", "sh", "sqlite3", BACKUP),
    Rule("docs/upgrade.md", "sh", "createdb", BACKUP),
    Rule("docs/upgrade.md", "sh", "rm -f", BACKUP),
    Rule("docs/upgrade.md", "sql", "UPDATE gateways", BACKUP),
)  # fmt: skip
COMMANDS = [
    block
    for block in blocks()
    if not block.is_output and block.language not in NO_COMMANDS
]


def the(page: str, language: str) -> str:
    """The only block of a language on a page."""
    (block,) = [b for b in COMMANDS if (b.page, b.language) == (page, language)]
    return block.text


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_a_block_of_commands_has_one_rule(block: Block) -> None:
    assert block.language, "name a language; `text` for what is no command"
    rules = [rule for rule in RULES if rule.applies_to(block)]
    assert len(rules) == 1, "add what executes it to RULES"


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_has_its_block_and_its_executor(rule: Rule) -> None:
    assert any(rule.applies_to(block) for block in COMMANDS)
    assert rule.how.exists()


def test_the_targets_of_make_exist() -> None:
    """Also those of commands that nobody executes."""
    texts = [block.text for block in COMMANDS if block.language in {"sh", "console"}]
    named = {
        target for text in texts for target in re.findall(r"\bmake ([\w-]+)", text)
    }
    assert {"run", "test", "bench"} <= named
    for target in named:
        subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True
        )


def test_the_configuration_of_codex_is_the_tested_one() -> None:
    documented = tomllib.loads(the("README.md", "toml"))
    url = documented["model_providers"]["proxy"]["base_url"]
    tested = tomllib.loads(codex.CONFIG.format(url=url, websockets="false"))
    assert documented["model_provider"] == tested["model_provider"]
    assert (
        documented["model_providers"]["proxy"].items()
        <= tested["model_providers"]["proxy"].items()
    )


def test_the_price_list_can_be_read(tmp_path: Path) -> None:
    listed = tmp_path / "prices.toml"
    listed.write_text(the("docs/queries.md", "toml"))
    assert read_prices(listed)


def test_the_packages_of_traces_are_those_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = set(project["optional-dependencies"]["otel"])
    page = (ROOT / "docs/operate.md").read_text().partition("\n## Traces\n")[2]
    named = re.findall(r"'(opentelemetry[^']+)'", page.partition("\n## ")[0])
    assert len(named) == 2
    assert set(named) <= extra
