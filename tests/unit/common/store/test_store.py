"""What both databases do in the same way is tested on both, in
tests/integration/store/guarantees; here, what is decided before any of them."""

import pytest

from libs.common.store.sqlite.store import SqliteStore
from libs.common.store.store import Store


def test_a_store_answers_every_call() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Store()  # type: ignore[abstract]
    assert issubclass(SqliteStore, Store)
