"""The ids that one answer states."""

import pytest

from services.gateway.content.facts import Facts


@pytest.mark.parametrize(
    ("facts", "ids"),
    [
        pytest.param(Facts(), (), id="none"),
        pytest.param(Facts("resp_1"), ("resp_1",), id="only its own"),
        pytest.param(
            Facts("resp_1", minted=("msg_1",)), ("resp_1", "msg_1"), id="its own first"
        ),
        pytest.param(
            Facts("resp_1", minted=("resp_1", "msg_1")),
            ("resp_1", "msg_1"),
            id="each once",
        ),
        pytest.param(Facts(minted=("file_1",)), ("file_1",), id="no response"),
    ],
)
def test_ids(facts: Facts, ids: tuple[str, ...]) -> None:
    assert facts.ids == ids
