"""What is read from and changed in request bodies."""
