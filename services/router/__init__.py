"""Owner of the routing state in Redis, the catalogue, admin API and dashboard."""
