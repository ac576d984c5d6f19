"""Scripted faults and how they reach the wire."""
