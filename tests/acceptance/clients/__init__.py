"""Real clients through a gateway."""
