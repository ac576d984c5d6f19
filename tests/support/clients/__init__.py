"""Clients: real ones and bare sockets."""
