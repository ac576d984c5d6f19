"""Query parameters of pages."""

import pytest

from services.router.admin.schemas.pages import PageFilter, page_of


@pytest.mark.parametrize(
    ("given", "limit"), [({}, 100), ("1", 1), ("500", 500), ("007", 7)]
)
def test_a_limit(given: object, limit: int) -> None:
    sent = {"limit": given} if given else {}
    assert PageFilter.model_validate(sent).limit == limit


@pytest.mark.parametrize("given", ["0", "501", "1e2", "-1", "+1", "1_0", " 1", "٣"])
def test_an_invalid_limit(given: str) -> None:
    with pytest.raises(ValueError, match="between 1 and 500"):
        PageFilter.model_validate({"limit": given})


def test_openapi_shows_the_bounds_and_no_null() -> None:
    properties = PageFilter.model_json_schema()["properties"]
    limit = properties["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 500, 100)
    assert properties["cursor"]["type"] == "string"


def test_a_page_has_rows_and_the_cursor_of_the_next() -> None:
    page = page_of("Page", PageFilter)
    made = page.model_validate({"data": [{}], "next_cursor": None})
    assert made.model_dump()["data"][0]["limit"] == 100
