"""The routing functions on a real server: leases, choice, affinity, health."""
