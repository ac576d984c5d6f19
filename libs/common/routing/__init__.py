"""Routing: the functions in Redis, and the same rules in memory."""
