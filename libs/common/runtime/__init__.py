"""What every process needs: logs, lifecycle, probes, TLS."""
