"""Who may send a request: proxy keys, their limits, tenants and browsers."""
