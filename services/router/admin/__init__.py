"""The admin API, a module per subject."""
