"""The values files that tests render, each once."""

from functools import cache
from pathlib import Path

import pytest

from tests.support.kubernetes.chart import Document, load, render

VALUES = {path.stem: path for path in Path(__file__).parent.glob("values/*.yaml")}


@cache
def rendered(name: str) -> list[Document]:
    return render(load(VALUES[name]))


@pytest.fixture(params=sorted(VALUES))
def documents(request: pytest.FixtureRequest) -> list[Document]:
    """What one of the values files leads to."""
    return rendered(request.param)
