"""SQL behind one port: Postgres, or SQLite for a single machine."""
