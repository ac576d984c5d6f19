"""Scripted faults and how they are sent."""
