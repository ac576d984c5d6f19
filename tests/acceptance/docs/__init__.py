"""The documentation agrees with code and tests."""
