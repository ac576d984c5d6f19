"""Dialing."""
