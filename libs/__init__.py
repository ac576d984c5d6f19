"""What services share; never imports a service."""
