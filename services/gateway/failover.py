"""May a failed attempt be repeated elsewhere? Pure."""

# Before the first byte reached the client. 401 and 403 too: the client did not
# choose the key.
_RETRIED = frozenset({401, 403, 429, 500, 502, 503, 504, 529})


def retried(status: int) -> bool:
    """Does an answer of this status send the request to another resource?"""
    return status in _RETRIED
