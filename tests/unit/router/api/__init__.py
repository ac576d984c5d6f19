"""Tests of services/router/api."""
