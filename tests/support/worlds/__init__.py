"""Running products for the tests of a subject, and what they do with them."""
