"""Traces of requests, if they are on (docs/operate.md, Traces)."""
