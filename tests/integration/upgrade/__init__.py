"""Upgrades from the version before, and backups."""
