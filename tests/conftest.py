"""Fixtures for all tests; each lives with what it starts."""

pytest_plugins = ["tests.support.valkey"]
