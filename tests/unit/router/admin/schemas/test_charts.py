"""Charts, as they are described."""

import pytest

from services.router.admin.live.charts import COUNTS, PERCENTILES
from services.router.admin.schemas.charts import ChartFilter, Charts, Series


def test_a_chart_is_of_the_last_hour_by_default() -> None:
    assert ChartFilter().model_dump(exclude_none=True) == {"window": "hour"}


def test_a_name_that_nothing_has_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        ChartFilter.model_validate({"team_id": "a\0"})


def test_the_series_are_those_that_are_made() -> None:
    assert set(Series.model_fields) == {*COUNTS, *PERCENTILES, "cost_usd"}
    assert "from" in Charts.model_json_schema(mode="serialization")["properties"]
