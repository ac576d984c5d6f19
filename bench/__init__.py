"""Measures the gateway against a direct connection and nginx, on two cores."""
