"""Code that at least two services use."""
