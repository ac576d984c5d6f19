"""Real Redis and SQL servers, and looking into them."""
