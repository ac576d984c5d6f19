"""Clients of every kind, real ones and bare sockets."""
