"""The upstream side: an HTTP/1.1 client with pooled connections."""
