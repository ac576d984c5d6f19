"""Commands for operators, run from a checkout."""
