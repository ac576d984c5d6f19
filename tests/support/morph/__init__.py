"""A stand-in for Morph's HTTP API."""
