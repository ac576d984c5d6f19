"""The simulated upstream, and a proxy in front of it."""
