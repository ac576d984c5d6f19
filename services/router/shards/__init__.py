"""The shards of a stack: Redis namespaces, each with its routers, and one database."""
