"""The types that services exchange."""
