"""Default values for tests."""
