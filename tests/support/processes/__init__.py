"""Starts processes for tests and waits for conditions."""
