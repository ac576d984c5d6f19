"""Tests of services/router/admin/auth."""
