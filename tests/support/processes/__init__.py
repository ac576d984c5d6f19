"""Processes that tests start, and waiting for them."""
