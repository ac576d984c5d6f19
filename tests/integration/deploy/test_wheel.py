"""Wheels of this package. The compiled one is what the image installs, so the lab tests
it (tests/lab/image.sh); the one for every platform is made here."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from libs.common.runtime.compiled import LIBRARY, RECORD
from tests.support.processes.processes import ROOT

FORM = "from libs.common.runtime import compiled as c; print(c.form(), c.__file__)"
WHEEL = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
INSTALL = ["--python", "new/bin/python", "install", "--no-deps", "--no-index"]


def run(folder: Path, *command: str) -> str:
    environ = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    environ["PROXY_COMPILE"] = "0"
    done = subprocess.run(
        command, cwd=folder, env=environ, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_that_is_not_compiled_is_for_every_platform(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    made = shutil.ignore_patterns("__pycache__", "*.so", RECORD)
    for part in ("libs", "services"):
        shutil.copytree(ROOT / part, checkout / part, ignore=made)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, checkout)
    # As after `make compile`: none of it belongs into this wheel.
    for leftover in (LIBRARY, RECORD):
        (checkout / "libs" / leftover).write_text("{}")

    run(tmp_path, sys.executable, *WHEEL, "--wheel-dir", "dist", "./checkout")

    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "libs/common/runtime/compiled.py" in names
    assert not [name for name in names if name.endswith((".so", RECORD))]
    run(tmp_path, sys.executable, "-m", "venv", "--without-pip", "new")
    run(tmp_path, sys.executable, "-m", "pip", *INSTALL, str(wheel))
    told = run(tmp_path, "new/bin/python", "-P", "-c", FORM)
    assert told.startswith(f"interpreted {tmp_path}/new/lib/")
