"""Writes events and captured bodies from Redis streams to SQL."""
