"""What the router does on a Redis Cluster only."""
