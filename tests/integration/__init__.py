"""Tests of one service or library with real servers and processes."""
