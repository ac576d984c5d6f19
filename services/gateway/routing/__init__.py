"""Selects the resource of each attempt, with Redis or without it."""
