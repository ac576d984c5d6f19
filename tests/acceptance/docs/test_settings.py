"""Every setting is in README.md's configuration tables, with its default."""

import re
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
