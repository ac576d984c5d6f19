"""The function library in Redis, as Lua files (services/router/function_library.py)."""
