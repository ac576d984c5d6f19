"""Fixtures of all tests; each is defined next to what it starts."""

# In import order: pytest must see a plugin before other modules import it.
pytest_plugins = [
    "tests.support.databases.valkey",
    "tests.support.databases.postgres",
    "tests.support.databases.certificates",
    "tests.support.databases.stores",
    "tests.support.clients.chromium",
]
