"""`responses-proxy up` as a user starts it."""
