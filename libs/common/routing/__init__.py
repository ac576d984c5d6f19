"""The routing functions and what decides without them."""
