"""What is recorded of each request, and the journal that keeps it."""
