"""Tests of the router's modules."""
