"""The bill of materials of an environment as large as an image's."""

import json
import subprocess
import sys
import tomllib

from scripts.sbom import sbom
from tests.support.processes.processes import ROOT


def test_this_environment_as_an_image_would_be_read() -> None:
    """The inventory of this interpreter: our version is that of pyproject.toml, and
    every package of the lock is found."""
    # Here, because building its grammars takes 1.7 s of each worker's collection.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    listed = subprocess.run(
        [sys.executable, "-"],
        input=(ROOT / "scripts" / "inventory.py").read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    text = sbom(json.loads(listed))

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document["metadata"]["component"]["version"] == project["version"]
    refs = {part["bom-ref"] for part in document["components"]}
    locked = {
        line.partition("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and ";" not in line
    }
    assert {f"python:{name}" for name in locked} <= refs
    assert "program:valkey" in refs
