"""Serves everything but /v1: the admin API, the dashboard and the probes."""
