"""The journal: records in memory-mapped files until SQL has them."""
