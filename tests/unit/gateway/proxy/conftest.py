"""Three resources for a world in memory."""

import pytest

from tests.support.memory.twin import Twin, resource


@pytest.fixture
def twin() -> Twin:
    return Twin(resource("a"), resource("b"), resource("c"))
