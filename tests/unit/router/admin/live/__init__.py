"""Tests of services/router/admin/schemas."""
