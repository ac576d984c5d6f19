"""Settings of all services, read from the environment."""
