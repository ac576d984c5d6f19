"""Registered providers, their credentials and where these may be sent."""
