"""Connections to real servers."""
