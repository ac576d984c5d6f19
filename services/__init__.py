"""The four services; each is a process of its own."""
