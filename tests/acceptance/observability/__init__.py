"""The shipped dashboards, alert rules and runbook."""
