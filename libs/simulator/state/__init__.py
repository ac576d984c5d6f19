"""What the simulated upstream remembers."""
