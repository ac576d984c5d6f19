"""A gateway in memory: its parts without sockets."""
