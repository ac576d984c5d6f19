"""What an upstream's answer says about its key and account."""
