"""WebSocket connections and their turns."""
