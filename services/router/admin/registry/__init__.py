"""Providers and model aliases."""
