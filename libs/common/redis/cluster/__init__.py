"""A Redis Cluster: finds the node that has the slot of all our keys, and follows it."""
