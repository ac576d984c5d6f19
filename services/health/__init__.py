"""Active checks of every resource, and their verdicts."""
