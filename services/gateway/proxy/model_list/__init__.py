"""`GET /v1/models`: the upstream's list, less what a key may not use, and aliases."""
