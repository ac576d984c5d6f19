"""Tests of libs/common/store/admin."""
