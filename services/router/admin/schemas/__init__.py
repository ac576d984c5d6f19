"""The models of what the admin API takes and answers."""
