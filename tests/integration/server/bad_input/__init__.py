"""Invalid input from clients, byte by byte: each gets a clear answer where possible,
its connection is closed, and nothing is left."""
