"""Captured request and response bodies."""
