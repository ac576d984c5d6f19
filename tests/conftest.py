"""Fixtures of all tests; each is defined next to what it starts."""

import gc

from hypothesis import settings

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


def pytest_collection_finish() -> None:
    """Keep what is there for the whole run out of each garbage collection, as the
    gateway does: a full one took 0.2 s, in the middle of what a test measured."""
    gc.collect()
    gc.freeze()
    gc.enable()
