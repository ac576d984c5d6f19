"""The client side: an HTTP/1.1 server on asyncio and httptools."""
