"""The simulated upstream and a proxy on the way to it."""
