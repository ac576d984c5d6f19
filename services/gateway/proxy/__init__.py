"""One proxied HTTP request, from authenticator to settlement."""
