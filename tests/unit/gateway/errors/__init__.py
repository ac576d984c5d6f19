"""The errors that the gateway answers itself."""
