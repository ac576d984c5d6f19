"""Tests of services/router/admin/registry."""
