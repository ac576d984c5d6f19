"""Registered providers, their credentials, and rules for where these may be sent."""
