"""Tests of the provider registry through all processes."""
