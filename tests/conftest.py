"""Fixtures for all tests; each lives with what it starts."""

# In order of import: pytest wants to see a plugin before others import it.
pytest_plugins = [
    "tests.support.valkey",
    "tests.support.postgres",
    "tests.support.certificates",
    "tests.support.stores",
    "tests.support.chromium",
]
