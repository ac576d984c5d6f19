"""The event that ends a stream whose upstream broke off."""

import json

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.content.failed_event import failed_event


@given(created=st.binary(max_size=30) | st.sampled_from([
    b'{"response":1}', b'{"response":null}', b"[]", b"1", b"{}", b'{"response":{}}',
]))  # fmt: skip
def test_whatever_was_created_the_notice_is_well_formed(created: bytes) -> None:
    notice = failed_event(created, 5, 'it "died"\n')
    frames = notice.split(b"\n\n")
    assert frames.pop() == b""
    assert len(frames) == (1 if created else 2)
    for number, frame in enumerate(frames, 5):
        kind, data = frame.split(b"\n")
        content = json.loads(data.removeprefix(b"data: "))
        assert kind == b"event: " + content["type"].encode()
        assert content["sequence_number"] == number
    assert content["response"]["error"]["message"] == 'it "died"\n'


def test_the_response_that_was_created_is_the_one_that_failed() -> None:
    created = b'{"response":{"id":"resp_1","model":"m","usage":{"input_tokens":1}}}'
    (frame,) = failed_event(created, 7, "cut").split(b"\n\n")[:-1]
    event = json.loads(frame.partition(b"data: ")[2])
    assert event["type"] == "response.failed"
    response = event["response"]
    assert (response["id"], response["model"]) == ("resp_1", "m")
    assert (response["status"], response["usage"]) == ("failed", None)
