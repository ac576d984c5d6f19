"""One proxied HTTP request, from admission to settlement."""
