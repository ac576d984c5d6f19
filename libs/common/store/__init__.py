"""SQL behind one interface: PostgreSQL, or SQLite for a single machine."""
