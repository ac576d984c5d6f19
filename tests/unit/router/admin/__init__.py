"""Tests of the admin API's modules."""
