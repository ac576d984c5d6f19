"""Each module has one file of unit tests, found by its path."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = Path("tests/unit")

# Modules and folders without one, and why.
EXCEPTIONS = {
    "libs/simulator": "a stand-in for tests, driven as a whole in tests/unit/simulator",
    "libs/cli/up.py": "starts processes",
    "libs/cli/gateway_with_ingest.py": "starts processes",
    "libs/cli/main.py": "loads the command line",
    "libs/cli/process": "starts processes",
    "libs/cli/operations": "commands, which are run as processes",
    "services/gateway/content/response_shapes.py": "shapes without code",
    "services/gateway/app.py": "puts the parts together; integration tests run it",
    "services/gateway/proxy/services.py": "two dataclasses without code",
    "services/gateway/server/phases.py": "an enum without code",
    "services/gateway/proxy/steps.py": "two enums and a dataclass without code",
    "services/gateway/websocket/turn_types.py": "two dataclasses and an exception",
    "services/gateway/__main__.py": "loads the service",
    "services/health/__main__.py": "loads the service",
    "services/ingest/__main__.py": "loads the service",
    "libs/common/bodies/hint_types.py": "part of reading hints: test_hints.py",
    "libs/common/bodies/named_ids.py": "part of reading hints: test_hints.py",
    "libs/common/bodies/schema.py": "part of the scanner: test_scanner.py",
    "libs/common/routing/hot_calls.py": "a Protocol without code",
    "libs/common/runtime/service_gauges.py": "two gauges without code",
    "libs/common/runtime/sql_gauge.py": "a gauge without code",
    "libs/common/store/admin/tokens.py": "single statements: tests/integration/router",
}


def modules() -> list[Path]:
    found = [
        path.relative_to(ROOT)
        for top in ("services", "libs")
        for path in sorted((ROOT / top).rglob("*.py"))
    ]
    return [path for path in found if path.name != "__init__.py"]


def unit_test_of(module: Path) -> Path:
    """`services/gateway/x/y.py` -> `tests/unit/gateway/x/test_y.py`."""
    return UNIT.joinpath(*module.parts[1:-1], f"test_{module.name}")


def is_excepted(module: Path) -> bool:
    return any(str(path) in EXCEPTIONS for path in (module, *module.parents))


def test_each_module_has_its_unit_test_file() -> None:
    missing = [
        f"{module}: {unit_test_of(module)}"
        for module in modules()
        if not is_excepted(module) and not (ROOT / unit_test_of(module)).exists()
    ]
    assert missing == []


def test_each_exception_is_needed() -> None:
    known = {str(path) for module in modules() for path in (module, *module.parents)}
    assert set(EXCEPTIONS) <= known
    with_file = [
        str(module)
        for module in modules()
        if str(module) in EXCEPTIONS and (ROOT / unit_test_of(module)).exists()
    ]
    assert with_file == []
