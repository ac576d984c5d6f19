"""Active health checks of resources."""
