"""Programs from Debian packages, which CI installs. Only a developer's machine may lack
them."""

import os
import shutil

import pytest

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def program(name: str, package: str) -> str:
    """The program's path. Without it the test is skipped, or fails in CI."""
    found = shutil.which(name, path=PLACES)
    if found is not None:
        return found
    missing = f"{name} is missing: install Debian's {package}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
