"""The guarantees of the store, the same on SQLite and on both Postgres."""
