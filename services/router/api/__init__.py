"""Declares HTTP operations by their models, and describes them as OpenAPI."""
