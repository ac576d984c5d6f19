"""What is read from headers and bodies of answers."""
