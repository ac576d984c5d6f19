"""Commands that an operator runs beside a running proxy."""
