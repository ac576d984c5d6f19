"""Commands over the admin API: `keys`, `teams`, `providers`, `models` and `apply`."""
