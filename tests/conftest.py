"""Fixtures of all tests; each is defined next to what it starts."""

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdist.scheduler import LoadFileScheduling

# A deadline would measure the machine. Tests that are about time measure it themselves.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

# Collections find nothing while tests are collected, and take a quarter of that time.
gc.disable()

# In import order: pytest must see a plugin before other modules import it.
pytest_plugins = [
    "tests.support.databases.valkey",
    "tests.support.databases.postgres",
    "tests.support.databases.certificates",
    "tests.support.databases.stores",
    "tests.support.clients.chromium",
]

# All tests of such a folder share what its conftest.py starts.
TOGETHER = ("tests/acceptance/dashboard",)


class Files(LoadFileScheduling):  # type: ignore[misc]  # untyped library
    """Runs all tests of a file in one worker, and those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((f for f in TOGETHER if file.startswith(f"{f}/")), file)


@pytest.hookimpl(optionalhook=True)  # there are no workers without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files | None:
    return Files(config, log) if config.getoption("dist") == "loadfile" else None


@settings(max_examples=1, database=None)
@given(st.none())
def _one_example(_: None) -> None:
    pass


def pytest_collection_finish() -> None:
    """Keep what is there for the whole run out of each garbage collection, as the
    gateway does: a full one took 0.2 s, in the middle of what a test measured."""
    # Hypothesis makes its generator of random numbers when it first runs, and warns if
    # no object refers to it. With Python 3.14 the one that does would not be looked at.
    _one_example()
    gc.collect()
    gc.freeze()
    gc.enable()
