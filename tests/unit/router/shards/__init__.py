"""Mirrors services/router/shards."""
