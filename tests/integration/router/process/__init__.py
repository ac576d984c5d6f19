"""Tests of the router as a process, on a real Redis-compatible server and SQLite."""
