"""From the telemetry stream to SQL."""
