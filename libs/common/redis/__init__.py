"""Access to Redis: connections, keys, streams and locks."""
