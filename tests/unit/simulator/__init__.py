"""The pure parts of the simulated upstream."""
