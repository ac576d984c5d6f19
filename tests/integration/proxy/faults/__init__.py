"""Faults of the upstream: what the client, the ledger and the health of keys have."""
