"""Metrics of all workers of a gateway, as one answer of `/metrics`."""
