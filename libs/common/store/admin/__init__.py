"""Who may use the admin API, and what they changed, in SQL."""
