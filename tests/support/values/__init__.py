"""Values that a test need not care about."""
