"""Logs, process lifecycle, probes, TLS."""
