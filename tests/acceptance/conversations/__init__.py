"""Conversations that stay with their upstream account."""
