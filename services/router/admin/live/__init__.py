"""What the proxy is doing now and did lately, and what is wrong."""
