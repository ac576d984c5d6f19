"""Admin API and probes on the gateway's address."""
