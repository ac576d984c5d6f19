"""Fixtures for all tests; each lives with what it starts."""

# In order of import: pytest wants to see a plugin before others import it.
pytest_plugins = [
    "tests.support.databases.valkey",
    "tests.support.databases.postgres",
    "tests.support.databases.certificates",
    "tests.support.databases.stores",
    "tests.support.clients.chromium",
]
