"""Tests of the store's modules."""
