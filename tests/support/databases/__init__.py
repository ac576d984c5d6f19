"""Real Redis and SQL servers, and access to their data."""
