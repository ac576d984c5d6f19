"""The journal: a log in memory-mapped files that keeps events until SQL has them."""
