"""The signature of Standard Webhooks, checked by OpenAI's SDK."""

import base64

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from services.ingest.alerts.signature import signed_headers, signing_key

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def test_an_example_of_the_specification() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    id_, at = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
    headers = signed_headers(key, id_, at, body)
    assert headers["webhook-signature"] == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_secrets() -> None:
    assert signing_key(SECRET) == KEY
    assert signing_key("plain text of a secret") == b"plain text of a secret"


def test_a_verifier_accepts_it_and_nothing_else() -> None:
    verify = OpenAI(api_key="x").webhooks.verify_signature
    headers = signed_headers(KEY, "evt", 2_000_000_000, b"{}")
    lasting = 10**10
    verify(b"{}", headers, secret=SECRET, tolerance=lasting)
    for changed in ({"webhook-id": "other"}, {"webhook-timestamp": "1999999999"}):
        with pytest.raises(InvalidWebhookSignatureError):
            verify(b"{}", {**headers, **changed}, secret=SECRET, tolerance=lasting)
    with pytest.raises(InvalidWebhookSignatureError):
        verify(b"{ }", headers, secret=SECRET, tolerance=lasting)
