"""The headers of a list that is changed; test_exchange.py has the rest."""

from services.gateway.proxy.model_list.relay import without_length


def test_headers_about_the_upstreams_bytes_go() -> None:
    kept = (b"content-type", b"application/json")
    gone = [(b"content-length", b"3"), (b"etag", b"x"), (b"content-encoding", b"br")]
    assert without_length([kept, *gone]) == [kept]
