"""The state of the simulated upstream."""
