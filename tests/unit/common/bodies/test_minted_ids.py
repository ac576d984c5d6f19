"""Which ids were minted by an upstream, and which were invented by a client."""

import pytest

from libs.common.bodies.minted_ids import ids_in_path, is_minted


@pytest.mark.parametrize(
    ("value", "minted"),
    [
        ("resp_1", True),
        ("file-abc", True),
        (f"apc_{'0a' * 25}", True),  # of a kind that is not listed
        (f"{'x' * 17}_{'0a' * 25}", False),
        ("call_0123456789abcdef01234567", False),
        ("msg_0190cafe-0000-7000-8000-000000000000", False),
        ("mine", False),
        (None, False),
    ],
)
def test_ids_of_upstreams_are_told_by_their_form(value: object, minted: bool) -> None:
    assert is_minted(value) is minted


def test_words_of_paths_are_no_ids() -> None:
    assert ids_in_path(b"/vector_stores/vs_1/file_batches") == ["vs_1"]


def test_escapes_in_a_path_hide_no_id() -> None:
    """The upstream decodes them, so another tenant's id must be seen behind them."""
    assert ids_in_path(b"/responses/res%70_B/cancel") == ["resp_B"]
