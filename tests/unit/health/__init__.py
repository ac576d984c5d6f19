"""Tests of the health service's modules."""
