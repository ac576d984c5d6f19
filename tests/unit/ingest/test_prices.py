from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.common.errors import SettingError
from libs.common.store.interface import Price
from services.ingest.prices import read_prices

LINE = """
[[price]]
model = "gpt-5"
valid_from = 2025-08-07
input = 1.25
cached_input = 0.125
output = 10
"""


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(LINE)
    valid_from = datetime(2025, 8, 7, tzinfo=UTC)
    assert read_prices(path) == [Price("gpt-5", valid_from, 1.25, 0.125, 10.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param("[[price", "is not TOML", id="no TOML"),
        pytest.param("", "price: Field required", id="empty"),
        pytest.param(LINE.replace("1.25", "-1"), "price.0.input:", id="negative"),
        pytest.param(LINE.replace("1.25", "nan"), "price.0.input:", id="no number"),
        pytest.param(LINE.replace("output", "outputs"), "price.0.output", id="typo"),
        pytest.param(LINE * 2, "two prices", id="twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=r"PROXY_PRICES_FILE: .*prices\.toml") as it:
        read_prices(path)
    assert says in str(it.value)
