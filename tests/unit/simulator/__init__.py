"""The simulated upstream, its pure parts."""
